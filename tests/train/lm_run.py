"""A whole training run on made-up data in a process of its own, for test_lm_faults.py.

python tests/train/lm_run.py FOLDER CHANGES [STEP FAULT]: the tiny model's stage, with changes of its recipe in JSON, to
its end, from the checkpoint if there is one. With FAULT, the process of rank 1 meets it when it reads STEP: "kill",
"stop" or "raise". Errors are printed as by the command line.
"""

import json
import os
import signal
import sys
from datetime import timedelta
from importlib import import_module
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))
PATIENCE = timedelta(seconds=20)


def main() -> int:
    """Trains; returns the exit status."""
    source = import_module("tests.train.lm_source")
    conftest = import_module("tests.lm.conftest")
    lm, loop, processes, distributed_checkpoint = (
        import_module(f"mimo_audio.train.{name}") for name in ("lm", "loop", "processes", "distributed_checkpoint")
    )
    lm.peak_flops = lambda device, dtype: 1e12
    model_class = import_module("mimo_audio.lm").AudioLanguageModel
    mimo_error = import_module("mimo_audio.errors").MimoError
    torch.set_num_threads(1)
    folder, changes = Path(sys.argv[1]), json.loads(sys.argv[2])
    at, fault = (int(sys.argv[3]), sys.argv[4]) if len(sys.argv) > 3 else (-1, "")

    def wrong(step: int) -> None:
        if step == at and os.environ.get("RANK") == "1":
            if fault == "raise":
                raise ZeroDivisionError("a fault of the program")
            os.kill(os.getpid(), {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}[fault])

    try:
        with processes.connected("cpu", PATIENCE) as alone:
            recipe = source.recipe_of(**changes)
            stage = recipe.stages["joint"]
            torch.manual_seed(0)
            model = model_class(conftest.tiny_config(), conftest.SPECIAL)
            data = source.RandomSource(model, stage.rows, stage.context, stage.seed, wrong)
            trainer = lm.Trainer(model, stage, data, alone, lm.noted(recipe, "joint"))
            loop.run(trainer, folder, trainer.load(folder) if distributed_checkpoint.latest(folder) else 0)
    except mimo_error as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    status = main()
    sys.stderr.flush()
    os._exit(status)  # see lm_process.py
