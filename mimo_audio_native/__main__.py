"""`python -m mimo_audio_native` prints how the native module was built. Needs torch only."""

from mimo_audio_native import build_info

for name, value in build_info().items():
    print(f"{name.replace('_', ' ')}: {value}")
