"""What the group norms of a tokenizer's decoder see when people speak: where every stream starts from.

Measured on the clips that ship with the package, by the model itself, once; so it fits any checkpoint.
"""

from dataclasses import dataclass
from importlib.resources import files
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from mimo_audio.device import weights_version
from mimo_audio.files import audio
from mimo_audio.tokenizer.model import AudioTokenizer

CLIPS = ("sentence.wav", "digits.wav")
PRIOR_FRAMES = 2.0  # code frames


@dataclass(frozen=True)
class Statistics:
    """Mean and variance over channels and time of a norm's input, and the code frames that they count for."""

    mean: float
    variance: float
    frames: float = PRIOR_FRAMES


_measured: "WeakKeyDictionary[AudioTokenizer, tuple[object, list[Statistics]]]" = WeakKeyDictionary()


def speech_statistics(tokenizer: AudioTokenizer) -> list[Statistics]:
    """Statistics of dconv1's norm (if there is one) and of dconv2's, averaged over the clips; kept per tokenizer."""
    version = weights_version(tokenizer)
    if _measured.get(tokenizer, (None,))[0] != version:
        clips = [
            audio.read(str(files("mimo_audio") / "assets" / clip), tokenizer.config.sampling_rate) for clip in CLIPS
        ]
        _measured[tokenizer] = version, statistics(tokenizer, tokenizer.encode_batch(clips))
    return _measured[tokenizer][1]


def statistics(tokenizer: AudioTokenizer, codes: list[Tensor]) -> list[Statistics]:
    """The same for given codes [R', T'], each decoded alone."""
    decoder = tokenizer.decoder
    norms = [up.norm for up in (decoder.dconv1, decoder.dconv2) if up is not None]
    seen: dict[torch.nn.Module, list[Tensor]] = {norm: [] for norm in norms}
    hooks = [norm.register_forward_pre_hook(lambda norm, args: seen[norm].append(args[0].double())) for norm in norms]
    try:
        for item in codes:
            tokenizer.coarse_mel(tokenizer.dequantize(item))
    finally:
        for hook in hooks:
            hook.remove()
    means = [torch.stack([x.mean() for x in inputs]).mean().item() for inputs in seen.values()]
    variances = [torch.stack([x.var(correction=0) for x in inputs]).mean().item() for inputs in seen.values()]
    return [Statistics(mean, variance) for mean, variance in zip(means, variances, strict=True)]
