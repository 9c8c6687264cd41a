"""`mimo-audio quantize`: writes a language model with weights of 8 or 4 bits."""

import os
from argparse import Namespace
from pathlib import Path

import torch

from mimo_audio.errors import ModelError
from mimo_audio.files.output import OutputError, check_output
from mimo_audio.lm import AudioLanguageModel, LanguageModelConfig
from mimo_audio.lm.quantized import Quantization
from mimo_audio.released import checkpoint
from mimo_audio.tasks import pairing


def run(arguments: Namespace) -> int:
    """Writes the folder, prints its size and returns the exit status."""
    source = pairing.find_model(arguments.input)
    if stored := Quantization.of(LanguageModelConfig.load(source / "config.json").extra):
        raise ModelError(f"{source}: expected weights that are not quantised, got {stored}")
    target: Path = arguments.output
    if target.exists() and target.resolve() == source.resolve():
        raise OutputError(f"{target}: expected another folder than the model's own")
    check_output(target / "config.json", arguments.force)
    dtype = checkpoint.floating_dtype(checkpoint.locate(source)) or torch.float32
    how = Quantization.named("int8" if arguments.int8 else "int4", arguments.group)
    model = AudioLanguageModel.from_pretrained(source, dtype=dtype, quantize=how)
    model.save_pretrained(target)
    before, after = (sum(os.path.getsize(file) for file in folder.glob("*.safetensors")) for folder in (source, target))
    print(f"{target}: {how}, {after / 1e9:.3g} GB of {before / 1e9:.3g} GB")
    return 0
