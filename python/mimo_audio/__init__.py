"""MiMo-Audio at native speed: models, training, evaluation and command line; the ops are `mimo_audio_native`.

`mimo_audio.load` gives a model for every task, a `MimoAudio`. Importing the package alone loads nothing heavy.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mimo_audio.tasks.model import MimoAudio, load

    __version__: str

__all__ = ["MimoAudio", "__version__", "load"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("mimo-audio-native")
        except PackageNotFoundError:  # run from its sources
            return "unknown"
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mimo_audio.tasks import model

    return getattr(model, name)
