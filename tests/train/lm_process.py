"""One process of a parallel training run on made-up data, for test_lm_parallel.py.

python tests/train/lm_process.py FOLDER CHANGES RESUME UNTIL: the tiny model's stage "joint" with changes to its recipe
(JSON), until a step; its losses go to FOLDER/losses.json, its weights to FOLDER/model.
"""

import json
import sys
from importlib import import_module
from itertools import islice
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))


def main() -> None:
    """Trains."""
    source = import_module("tests.train.lm_source")
    conftest = import_module("tests.lm.conftest")
    lm, parallel, processes = (import_module(f"mimo_audio.train.{name}") for name in ("lm", "parallel", "processes"))
    model_class = import_module("mimo_audio.lm").AudioLanguageModel
    folder, changes, resume, until = (
        Path(sys.argv[1]),
        json.loads(sys.argv[2]),
        sys.argv[3] == "resume",
        int(sys.argv[4]),
    )
    torch.set_num_threads(1)
    recipe = source.recipe_of(**changes)
    stage = recipe.stages["joint"]
    with processes.connected("cpu") as alone:
        arranged = parallel.arranged(alone, stage.tensor_parallel)
        torch.manual_seed(0)
        model = model_class(conftest.tiny_config(), conftest.SPECIAL)
        data = source.RandomSource(model, stage.rows, stage.context, stage.seed)
        trainer = lm.Trainer(model, stage, data, arranged, lm.noted(recipe, "joint"))
        first = trainer.load(folder) if resume else 0
        batches = (trainer.read(step, m) for step in range(first, until) for m in trainer.micro_batches)
        losses = [trainer.step(step, islice(batches, len(trainer.micro_batches))) for step in range(first, until)]
        trainer.save(folder, until)
        if arranged.is_first:
            (folder / "losses.json").write_text(json.dumps(losses))


if __name__ == "__main__":
    main()
