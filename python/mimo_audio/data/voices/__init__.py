"""Voices: text to speech by whatever is installed, behind one small interface.

A voice is named ENGINE/VOICE: "hibari/heart", "kokoro/af_heart", the mixture "kokoro/af_heart:0.5+am_adam:0.5",
"espeak/en-us+f3:70" (pitch 0-99), "flite/slt", "mimo/MODEL" or "mimo/MODEL@RECORDING" (any MiMo-Audio model, in the
voice of a recording: the report's own way to make spoken dialogues, section 4.1.3).

    wave, sample_rate = speak("Good morning.", "kokoro/bf_emma", rate=1.1)
"""

from mimo_audio.data.voices.engines import ENGINES, Engine, VoiceError, choose, engine, engine_of, installed, speak
from mimo_audio.data.voices.held_out import HELD_OUT, HELD_OUT_MIXTURES, is_held_out

__all__ = [
    "ENGINES",
    "HELD_OUT",
    "HELD_OUT_MIXTURES",
    "Engine",
    "VoiceError",
    "choose",
    "engine",
    "engine_of",
    "installed",
    "is_held_out",
    "speak",
]
