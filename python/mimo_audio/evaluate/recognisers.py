"""A small recogniser to compare originals and resynthesis with: English digits by pocketsphinx and a grammar."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import soxr

from mimo_audio.data.sentences import DIGITS
from mimo_audio.errors import MimoError
from mimo_audio.evaluate.metrics import Wave

RATE = 16000
PAUSE = 3200  # samples of quiet before and after, which the recogniser expects


def digits(wave: Wave, sample_rate: int) -> str:
    """The digits said in wave [N]. Raises MimoError if pocketsphinx is missing."""
    decoder = _decoder()
    signal = np.pad(soxr.resample(wave, sample_rate, RATE), PAUSE)
    decoder.start_utt()
    decoder.process_raw((signal.clip(-1, 1) * 32000).astype(np.int16).tobytes(), full_utt=True)
    decoder.end_utt()
    heard = decoder.hyp()
    return heard.hypstr if heard else ""


@lru_cache(1)
def _decoder() -> Any:
    try:
        from pocketsphinx import Config, Decoder, get_model_path
    except ImportError:
        raise MimoError("the recogniser of digits needs pocketsphinx: pip install pocketsphinx") from None
    folder = Path(get_model_path("en-us"))
    config = Config(
        hmm=str(folder / "en-us"),
        dict=str(folder / "cmudict-en-us.dict"),
        lm=None,
        samprate=float(RATE),
        loglevel="FATAL",
        dither=True,  # digital silence upsets it
        seed=0,
    )
    decoder = Decoder(config)
    decoder.add_jsgf_string("digits", f"#JSGF V1.0; grammar digits; public <s> = ({' | '.join(DIGITS)})+;")
    decoder.activate_search("digits")
    return decoder
