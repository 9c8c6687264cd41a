"""One process of a parallel training run on made-up data, for test_lm_parallel.py.

python tests/train/lm_process.py '[[FOLDER, CHANGES, FIRST, UNTIL], ..]': for each, the tiny model's stage "joint" with
changes to its recipe, from the checkpoint in the folder if FIRST is not 0, until a step; its losses go to
FOLDER/losses.json, its weights to FOLDER/model. Many in one process, as starting one takes longer than all of them.
"""

import json
import os
import sys
from importlib import import_module
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))


def main() -> None:
    """Trains."""
    source = import_module("tests.train.lm_source")
    conftest = import_module("tests.lm.conftest")
    lm, parallel, processes = (import_module(f"mimo_audio.train.{name}") for name in ("lm", "parallel", "processes"))
    model_class = import_module("mimo_audio.lm").AudioLanguageModel
    torch.set_num_threads(1)
    with processes.connected("cpu") as alone:
        for folder, changes, first, until in json.loads(sys.argv[1]):
            recipe = source.recipe_of(**changes)
            stage = recipe.stages["joint"]
            arranged = parallel.arranged(alone, stage.tensor_parallel)
            torch.manual_seed(0)
            model = model_class(conftest.tiny_config(), conftest.SPECIAL)
            data = source.RandomSource(model, stage.rows, stage.context, stage.seed)
            trainer = lm.Trainer(model, stage, data, arranged, lm.noted(recipe, "joint"))
            if first:
                assert trainer.load(Path(folder)) == first
            losses = [trainer.step(n, [trainer.read(n, m) for m in trainer.micro_batches]) for n in range(first, until)]
            trainer.save(Path(folder), until)
            if arranged.is_first:
                (Path(folder) / "losses.json").write_text(json.dumps(losses))


if __name__ == "__main__":
    main()
    # What was to be done is written. torch's threads of a process group sometimes end a process that takes its time to
    # exit ("terminate called without an active exception"), which is nothing that these tests are about.
    sys.stderr.flush()
    os._exit(0)
