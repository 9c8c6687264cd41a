"""What each choice of the nano tokenizer's recipe brings: short training runs that differ from it in one thing.

    python bench/tokenizer_ablation.py OUT --sets voices/manifest.jsonl digits/manifest.jsonl --start STAGE1/model

Every run is `mimo-audio train tokenizer` on a changed copy of the recipe (kept in OUT), scored by `mimo-audio eval
tokenizer`; what OUT holds already is not repeated. Runs of stage 1 start from random weights, those of stage 2 from a
tokenizer after stage 1. Those of stage 1 have far fewer steps than the recipe's: only their differences tell.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # for `bench` itself; the packages come from the environment

from bench.run import machine  # noqa: E402

SCORES = ("stoi", "pesq_nb", "pesq_wb", "mel_distance_db", "f0_error")
LOSSES = ("audio_to_text", "mel", "coarse", "magnitude", "phase", "wave", "commitment", "adversarial", "discriminator")
RECONSTRUCTION = {"mel": 1, "coarse": 1, "magnitude": 1, "phase": 0.5, "wave": 1}
ADVERSARIAL = {"adversarial": 1, "feature_matching": 2}

Recipe = dict[str, Any]
Change = Callable[[Recipe], object]


def shorten(stage1: dict[str, Any], steps: int) -> None:
    """The same course in fewer steps."""
    share = steps / stage1["steps"]
    for weights in stage1["weights"]:
        weights["first_step"] = round(weights["first_step"] * share)
    for name in ("unquantized", "warmup"):
        stage1[name] = round(stage1[name] * share)
    stage1 |= {"steps": steps, "checkpoint_every": steps}


def drop(*losses: str) -> Change:
    """Stage 1 without these losses."""

    def change(recipe: Recipe) -> None:
        for weights in recipe["stage1"]["weights"]:
            for loss in losses:
                weights.pop(loss, None)

    return change


def scale(factor: float) -> Change:
    """Other widths; heads and layers stay."""

    def change(recipe: Recipe) -> None:
        for name in ("d_model", "encoder_ffn_dim", "decoder_ffn_dim", "vocoder_dim", "vocoder_intermediate_dim"):
            recipe["model"][name] = round(recipe["model"][name] * factor)

    return change


def set_value(section: str, **values: Any) -> Change:
    return lambda recipe: recipe[section].update(values)


def read_text(recipe: Recipe) -> None:
    """The paper's language model at the tokenizer's size; the paper's ratio of its weight to mel's and commitment's."""
    sizes = {"width": 128, "layers": 2, "heads": 4, "ffn_dim": 512, "batch": 4, "seconds": 6}
    recipe["stage1"]["audio_to_text"] = sizes
    for weights in recipe["stage1"]["weights"]:
        weights["audio_to_text"] = 10 * weights["commitment"]


# By stage: what differs from the recipe, in words and in keys.
RUNS: dict[str, dict[str, Change]] = {
    "stage1": {
        "the recipe": lambda recipe: None,
        "the paper's losses alone (mel, commitment)": set_value(
            "stage1", weights=[{"first_step": 0, "mel": 1, "commitment": 1}]
        ),
        "without the coarse mel loss": drop("coarse"),
        "without magnitude and phase losses": drop("magnitude", "phase"),
        "codebooks from the first step": set_value("stage1", unquantized=0),
        "without the phase's steady advance": set_value("model", vocoder_phase_advance=False),
        "half the width": scale(0.5),
        "1.5 times the width": scale(1.5),
        "with the audio-to-text objective": read_text,
    },
    "stage2": {
        "the recipe: reconstruction losses alone": lambda recipe: None,
        "discriminators in the last 2,000 steps, a third as heavy": set_value(
            "stage2",
            steps=7000,
            discriminator_learning_rate=0.002,
            weights=[
                {"first_step": 0, **RECONSTRUCTION},
                {"first_step": 5000, **{name: 3 * weight for name, weight in RECONSTRUCTION.items()}, **ADVERSARIAL},
            ],
        ),
        "discriminators almost from the start, as heavy as the paper's": set_value(
            "stage2",
            weights=[{"first_step": 0, **RECONSTRUCTION}, {"first_step": 100, **RECONSTRUCTION, **ADVERSARIAL}],
        ),
    },
}


def run(stage: str, change: Change, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Trains and scores one variant in `folder`, or reads what it left."""
    recipe: Recipe = json.loads(arguments.recipe.read_text())
    if stage == "stage1":
        shorten(recipe[stage], arguments.steps)
    change(recipe)
    del recipe["stage2" if stage == "stage1" else "stage1"]
    if not (folder / "scores" / "scores.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "recipe.json").write_text(json.dumps(recipe, indent=2))
        begun = (folder / stage / "checkpoint.safetensors").exists()
        start = ["--resume"] if begun else ["--start", arguments.start] if stage == "stage2" else []
        mimo("train", "tokenizer", "--config", folder / "recipe.json", "--out", folder, *start)
    last = json.loads((folder / stage / "log.jsonl").read_text().splitlines()[-1])
    return {
        "steps": last["step"],
        "losses": {name: value for name, value in last.items() if name in LOSSES},
        "perplexity": last["perplexity"],
        "scores": score(folder / stage / "model", folder / "scores", arguments.sets),
    }


def score(model: Path, out: Path, sets: list[Path]) -> dict[str, dict[str, float]]:
    """Mean scores of a tokenizer on every set."""
    if not (out / "scores.json").exists():
        mimo("eval", "tokenizer", *sets, "--model", model, "--out", out)
    found = json.loads((out / "scores.json").read_text())["sets"]
    return {name: {key: one["mean"][key] for key in SCORES} for name, one in found.items()}


def mimo(*command: object) -> None:
    subprocess.run([sys.executable, "-m", "mimo_audio", *map(str, command)], check=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of the runs")
    parser.add_argument("--sets", type=Path, nargs="+", required=True, help="recordings to score, folders or manifests")
    parser.add_argument("--recipe", type=Path, default=ROOT / "recipes" / "tokenizer-nano.json")
    parser.add_argument("--start", type=Path, required=True, help="the tokenizer folder that stage 2 begins with")
    parser.add_argument("--steps", type=int, default=1000, help="of every run of stage 1 (default: 1000)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the record")
    arguments = parser.parse_args()
    recipe: Recipe = json.loads(arguments.recipe.read_text())
    record: dict[str, Any] = {
        "machine": machine("cpu"),
        "recipe": arguments.recipe.stem,
        "seeds": {stage: recipe[stage]["seed"] for stage in RUNS},
        "steps": arguments.steps,
        "start": str(arguments.start),
        "sets": [path.stem if path.is_dir() else path.parent.name for path in arguments.sets],
    }
    for stage, variants in RUNS.items():
        record[stage] = {}
        if stage == "stage2":
            record[stage]["none"] = {
                "steps": 0,
                "scores": score(arguments.start, arguments.out / "start", arguments.sets),
            }
        for number, (name, change) in enumerate(variants.items()):
            print(f"== {stage}: {name}", flush=True)
            record[stage][name] = run(stage, change, arguments.out / f"{stage}-{number}", arguments)
            if arguments.json:
                arguments.json.write_text(json.dumps(record, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
