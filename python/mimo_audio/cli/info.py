"""`mimo-audio info`: versions, the native build, devices, and a model's size."""

import platform
from argparse import Namespace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

import mimo_audio_native as mn
from mimo_audio.cli.codec import load
from mimo_audio.device import choose_device
from mimo_audio.errors import ModelError
from mimo_audio.evaluate.metrics import bitrate
from mimo_audio.lm import AudioLanguageModel, LanguageModelConfig, memory
from mimo_audio.lm.quantized import Quantization
from mimo_audio.released import hub
from mimo_audio.tasks.pairing import FRAME_RATE, find_tokenizer, is_language_model
from mimo_audio.text import TextTokenizer
from mimo_audio.tokenizer import AudioTokenizer
from mimo_audio.tokenizer.config import TokenizerConfig

PACKAGES = (
    *("mimo-audio-native", "torch", "numpy", "soundfile", "soxr", "safetensors", "tokenizers"),
    *("pesq", "pystoi", "matplotlib"),
)
DEVICES = (8, 16, 24, 80)  # GB
STREAM_SECONDS = 60


def run(arguments: Namespace) -> int:
    """Prints one fact per line and returns the exit status."""
    device = choose_device(arguments.device)
    facts = {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}}
    facts |= {f"native {key.replace('_', ' ')}": str(value) for key, value in mn.build_info().items()}
    facts["cpu"] = f"{torch.get_num_threads()} threads"
    facts["gpu"] = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    facts["device used"] = device
    if arguments.model:
        facts["model"] = arguments.model
        folder = hub.cached(arguments.model) or Path(arguments.model)
        is_language = is_language_model(folder)
        facts |= _language_model(folder) if is_language else _tokenizer(arguments)
    width = max(map(len, facts))
    print("\n".join(f"{name.ljust(width)}  {value}" for name, value in facts.items()))
    return 0


def _tokenizer(arguments: Namespace) -> dict[str, str]:
    codec = load(arguments)
    parameters = sum(p.numel() for p in codec.tokenizer.parameters())
    entries = sum(codebook.numel() for codebook in codec.tokenizer.quantizer.embeddings())
    return {
        "kind": "audio tokenizer",
        "parameters": f"{parameters / 1e6:.1f} million, and {entries / 1e6:.1f} million in codebooks",
        "codebooks": "-".join(map(str, codec.sizes)),
        "fingerprint": codec.fingerprint,
        "sound": f"{codec.sample_rate} Hz",
        "tokens": f"{codec.frame_rate:g} frames/s, {bitrate(codec.sizes, codec.frame_rate):.2f} kbit/s",
    }


def _language_model(folder: Path) -> dict[str, str]:
    """From its configuration: the weights of a large model need not be read for this."""
    config = LanguageModelConfig.load(folder / "config.json")
    try:
        tokens = f"{TextTokenizer.load(folder, config.vocab_size).size} tokens"
    except ModelError as error:
        tokens = f"no text tokenizer: {error}"
    model = memory.on_meta(config)
    parts = memory.parts(model)
    sizes = ", ".join(f"{name} {count / 1e6:.1f}" for name, count in parts.items())
    seconds = config.max_position_embeddings * config.group_size / FRAME_RATE
    return {
        "kind": "language model",
        "parameters": f"{sum(parts.values()) / 1e6:.1f} million: {sizes}",
        "layers": f"{config.num_hidden_layers}, patch encoder {config.input_local_layers}, "
        f"patch decoder {config.local_layers}",
        "vocabulary": f"{config.vocab_size} rows, {tokens}",
        "codebooks": "-".join(str(size - 1) for size in config.speech_vocab_size),
        "patches": f"{config.group_size} frames, {FRAME_RATE / config.group_size:g}/s, "
        f"delays {'-'.join(map(str, config.delay_pattern))}",
        "context": f"{config.max_position_embeddings} text tokens and patches, {seconds:.0f} s of speech",
        **_memory(folder, model),
    }


def _memory(folder: Path, model: AudioLanguageModel) -> dict[str, str]:
    """Weights in each format, keys and values, and what fits."""
    config, rate = model.config, FRAME_RATE / model.config.group_size
    try:
        codec = TokenizerConfig.load(find_tokenizer(folder, None) / "config.json")
        with torch.device("meta"):
            beside = sum(weight.numel() for weight in AudioTokenizer(codec).parameters())
        with_codec = "the audio tokenizer"
    except ModelError:  # of another place: the sizes here are of the language model alone
        beside, with_codec = 0, "no audio tokenizer, as none is beside it"
    each = {kind: memory.position_bytes(config, kind) * rate for kind in ("float32", "bfloat16")}
    minute = round(STREAM_SECONDS * rate)
    facts = {
        "keys and values": ", ".join(f"{_size(bytes_)} per second of audio in {kind}" for kind, bytes_ in each.items()),
        "streams": f"that fit, of {STREAM_SECONDS} s each with prompt and answer, beside the weights and {with_codec}",
    }
    stored = Quantization.of(config.extra)
    for kind in memory.FORMATS if stored is None else (stored,):
        try:
            weights = memory.weight_bytes(model, kind)
        except ModelError as error:
            facts[f"in {kind}"] = f"not possible: {error}"
            continue
        more = beside * memory.item_bytes(kind)
        fits = ((size, memory.streams(model, kind, size * 1e9, minute, more)) for size in DEVICES)
        facts[f"in {kind}"] = f"{_size(weights)} of weights; streams in " + ", ".join(
            f"{size} GB: {count or 'none'}" for size, count in fits
        )
    return facts


def _size(count: float) -> str:
    unit = next((n for n in range(3) if count < 1000 ** (n + 1)), 3)
    return f"{count / 1000**unit:.{1 if unit else 0}f} {('bytes', 'KB', 'MB', 'GB')[unit]}"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
