"""`mimo-audio data tokenize`: recordings of manifests to a token set."""

import logging
import os
from argparse import Namespace

from mimo_audio.device import choose_device
from mimo_audio.train.tokenize import tokenize

LOG = logging.getLogger(__name__)
SHOWN = 5  # of the files left out


def run(arguments: Namespace) -> int:
    """Tokenizes and returns the exit status: 1 if a recording had to be left out."""
    device = choose_device(arguments.device)
    workers = arguments.workers or (1 if device.startswith("cuda") else os.cpu_count() or 1)
    done = tokenize(arguments.input, arguments.out, arguments.model, arguments.n_q, device, workers)
    print(f"{arguments.out}: {done.recordings} recordings ({done.hours:.2f} h) and {done.rows} rows added")
    for name, why in done.failed[:SHOWN]:
        LOG.error("left out: %s: %s", name, why)
    if len(done.failed) > SHOWN:
        LOG.error("left out: %d more", len(done.failed) - SHOWN)
    return 1 if done.failed else 0
