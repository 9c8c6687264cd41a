"""The released 7B's shapes with random int4 weights: a folder that is mapped, loaded and generates within 8 GB.

    python bench/full_size.py /tmp/seven --json record.json    writes 5.7 GB there; delete the folder afterwards

The weights are one random block of rows per width, repeated: what a step reads and computes is that of the real ones.
Peak memory is the kernel's count for the process that loads and generates, pages of mapped files included.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from mimo_audio.engine import Limits, Request
from mimo_audio.engine.engine import Engine
from mimo_audio.evaluate.environment import environment
from mimo_audio.lm import AudioLanguageModel, LanguageModelConfig
from mimo_audio.lm.quantized import Quantization, formats, note
from mimo_audio.lm.samplers import AUDIO, GREEDY
from mimo_audio_native import quantize_weight

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `bench` itself; the packages come from the environment
HOW = Quantization(4)
BLOCK = 256  # rows


def write(folder: Path, text: Path) -> None:
    """The folder; text: one whose text tokenizer's files it gets."""
    from bench.cases.language_model import RELEASED

    torch.manual_seed(0)
    blocks: dict[tuple[int, int], Tensor] = {}
    special = AudioLanguageModel.from_pretrained(text).special
    with torch.device("meta"):
        model = AudioLanguageModel(LanguageModelConfig.from_dict(RELEASED.to_dict()), special, text)
    packed = formats(model, HOW)
    for name, weight in list(model.named_parameters()):
        rows, width = len(weight), weight[0].numel()
        if weight.dim() == 1:
            value = torch.ones(rows) if "norm" in name else torch.zeros(rows)
            value = value.bfloat16()
        else:
            how = packed.get(name)
            key = (width, how.bits if how else 16)
            if key not in blocks:
                random = torch.randn(BLOCK, width) * width**-0.5
                blocks[key] = quantize_weight(random, how.bits, how.group) if how else random.bfloat16()
            value = blocks[key].repeat(-(-rows // BLOCK), 1)[:rows]
        owner, leaf = name.rpartition(".")[::2]
        setattr(model.get_submodule(owner), leaf, nn.Parameter(value, requires_grad=False))
    note(model, HOW)
    model.save_pretrained(folder, shard_bytes=1 << 30)


def generate(folder: Path, groups: int, requests: int) -> dict[str, object]:
    """Loads the folder and generates; -> times and the peak of memory."""
    start = time.perf_counter()
    model = AudioLanguageModel.from_pretrained(folder, dtype=torch.bfloat16)
    loaded = time.perf_counter() - start
    config = model.config
    text = torch.arange(100, 108).repeat_interleave(config.group_size)
    codes = [torch.zeros_like(text) for _ in range(config.audio_channels)]
    prompt = torch.stack([text, *codes])
    prompt[0, -2 * config.group_size :] = model.special.empty  # two patches
    start = time.perf_counter()
    asked = [Request(prompt, Limits(groups), GREEDY, AUDIO, seed) for seed in range(requests)]
    answers = Engine(model, requests).run(asked)
    passed = time.perf_counter() - start
    assert all(ids.shape[1] == groups * config.group_size for ids in answers)
    local = torch.randn(1, config.local_dim).bfloat16()
    start = time.perf_counter()
    patch = model.patch_decode(local)
    return {
        "seconds_to_load": round(loaded, 2),
        "groups": groups * requests,
        "seconds_to_generate": round(passed, 2),
        "seconds_of_a_patch_decode": round(time.perf_counter() - start, 3),
        "patch": list(patch.shape),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="to write the model to, if it is not there")
    parser.add_argument("--text", type=Path, default=Path(__file__).parents[1] / "tests/golden/ckpt/A_lm_s0")
    parser.add_argument("--groups", type=int, default=3, help="of an answer (default: %(default)s)")
    parser.add_argument("--requests", type=int, default=2, help="(default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write the record")
    parser.add_argument("--generate", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.generate:
        print(json.dumps(generate(arguments.folder, arguments.groups, arguments.requests)))
        return
    if not (arguments.folder / "config.json").exists():
        write(arguments.folder, arguments.text)
    command = [sys.executable, __file__, str(arguments.folder), "--generate"]
    command += ["--groups", str(arguments.groups), "--requests", str(arguments.requests)]
    made = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)  # its own peak
    size = sum(path.stat().st_size for path in arguments.folder.glob("*.safetensors"))
    record = {"environment": environment("cpu"), "weights": str(HOW), "gb_on_disk": round(size / 1e9, 2), **made}
    print(json.dumps(record, indent=1))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
