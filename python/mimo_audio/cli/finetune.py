"""`mimo-audio finetune`: a model of the released layout, on recordings of one's own."""

import os
from argparse import Namespace
from pathlib import Path

from mimo_audio.device import choose_device
from mimo_audio.tasks import pairing
from mimo_audio.train.finetune import Settings, finetune
from mimo_audio.train.lora import Lora


def run(arguments: Namespace) -> int:
    """Fine-tunes and returns the exit status."""
    device = choose_device(arguments.device)
    model = pairing.find_model(arguments.model)
    tokenizer = Path(pairing.find_tokenizer(model, arguments.tokenizer))
    settings = Settings(
        steps=arguments.steps,
        lora=Lora(rank=arguments.rank, alpha=2 * arguments.rank) if arguments.lora else None,
        learning_rate=arguments.learning_rate,
        rows=arguments.rows,
        micro_batches=arguments.micro_batches,
        context=arguments.context,
        precision="bfloat16" if device.startswith("cuda") else "float32",
        seed=arguments.seed,
        empty_loss_weight=arguments.empty_loss_weight,
    )
    workers = 1 if device.startswith("cuda") else os.cpu_count() or 1
    finetune(model, tokenizer, arguments.data, arguments.out, settings, arguments.resume, device, workers)
    print(f"{arguments.out / 'model'}: ready, for --model")
    return 0
