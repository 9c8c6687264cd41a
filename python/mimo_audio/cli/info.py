"""`mimo-audio info`: versions, the native build, devices, and a model's size."""

import platform
from argparse import Namespace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

import mimo_audio_native as mn
from mimo_audio.cli.codec import load
from mimo_audio.device import choose_device
from mimo_audio.evaluate.metrics import bitrate
from mimo_audio.lm import AudioLanguageModel, LanguageModelConfig
from mimo_audio.released import hub
from mimo_audio.tasks.pairing import FRAME_RATE, is_language_model
from mimo_audio.text import TextTokenizer

PACKAGES = (
    *("mimo-audio-native", "torch", "numpy", "soundfile", "soxr", "safetensors", "tokenizers"),
    *("pesq", "pystoi", "matplotlib"),
)


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
    text = TextTokenizer.load(folder, config.vocab_size)
    with torch.device("meta"):
        model = AudioLanguageModel(config, text.special)
    total = sum(p.numel() for p in model.parameters())
    parts = (("patch encoder", model.patch_encoder), ("patch decoder", model.patch_decoder))
    sizes = ", ".join(f"{name} {sum(p.numel() for p in part.parameters()) / 1e6:.1f}" for name, part in parts)
    seconds = config.max_position_embeddings * config.group_size / FRAME_RATE
    return {
        "kind": "language model",
        "parameters": f"{total / 1e6:.1f} million, of these {sizes}",
        "layers": f"{config.num_hidden_layers}, patch encoder {config.input_local_layers}, "
        f"patch decoder {config.local_layers}",
        "vocabulary": f"{config.vocab_size} rows, {text.size} tokens",
        "codebooks": "-".join(str(size - 1) for size in config.speech_vocab_size),
        "patches": f"{config.group_size} frames, {FRAME_RATE / config.group_size:g}/s, "
        f"delays {'-'.join(map(str, config.delay_pattern))}",
        "context": f"{config.max_position_embeddings} text tokens and patches, {seconds:.0f} s of speech",
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
