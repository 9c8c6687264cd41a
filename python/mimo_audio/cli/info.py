"""`mimo-audio info`: versions, the native build, devices, and a model's size."""

import platform
from argparse import Namespace
from importlib.metadata import PackageNotFoundError, version

import torch

import mimo_audio_native as mn
from mimo_audio.cli.codec import choose_device, load
from mimo_audio.evaluate.metrics import bitrate

PACKAGES = ("mimo-audio-native", "torch", "numpy", "soundfile", "soxr", "safetensors", "pesq", "pystoi", "matplotlib")


def run(arguments: Namespace) -> int:
    """Prints one fact per line and returns the exit status."""
    device = choose_device(arguments.device)
    facts = {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}}
    facts |= {f"native {key.replace('_', ' ')}": str(value) for key, value in mn.build_info().items()}
    facts["cpu"] = f"{torch.get_num_threads()} threads"
    facts["gpu"] = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    facts["device used"] = device
    if arguments.model:
        codec = load(arguments)
        parameters = sum(p.numel() for p in codec.tokenizer.parameters())
        entries = sum(codebook.numel() for codebook in codec.tokenizer.quantizer.embeddings())
        facts["model"] = arguments.model
        facts["parameters"] = f"{parameters / 1e6:.1f} million, and {entries / 1e6:.1f} million in codebooks"
        facts["codebooks"] = "-".join(map(str, codec.sizes))
        facts["fingerprint"] = codec.fingerprint
        facts["sound"] = f"{codec.sample_rate} Hz"
        facts["tokens"] = f"{codec.frame_rate:g} frames/s, {bitrate(codec.sizes, codec.frame_rate):.2f} kbit/s"
    width = max(map(len, facts))
    print("\n".join(f"{name.ljust(width)}  {value}" for name, value in facts.items()))
    return 0


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
