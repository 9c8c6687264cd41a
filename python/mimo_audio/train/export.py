"""A trained tokenizer as small as it ships: weights rounded to bfloat16, codebooks kept in float32.

python -m mimo_audio.train.export --model runs/nano/stage2/model --out python/mimo_audio/assets/nano
"""

import argparse
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from mimo_audio.errors import MimoError
from mimo_audio.files.output import atomic_output
from mimo_audio.released.checkpoint import released_name
from mimo_audio.tokenizer import AudioTokenizer

EXACT = (".embed", ".cluster_size", ".inited", ".window")  # what decoding or further training would notice


def export(model: AudioTokenizer, folder: Path) -> None:
    """Writes config.json and model.safetensors, about half the size `save_pretrained` gives. Raises OutputError."""
    state = {
        released_name(name): tensor.detach()
        .cpu()
        .to(torch.float32 if name.endswith(EXACT) else torch.bfloat16)
        .contiguous()
        for name, tensor in model.state_dict().items()
    }
    with atomic_output(folder / "model.safetensors", force=True) as partial:
        save_file(state, partial, {"format": "pt"})
    model.config.save(folder / "config.json")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Store a tokenizer with bfloat16 weights and float32 codebooks.")
    parser.add_argument("--model", type=Path, required=True, help="folder with config.json and model.safetensors")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    try:
        export(AudioTokenizer.from_pretrained(args.model), args.out)
    except MimoError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
