"""Where a model is: a folder, or a name such as XiaomiMiMo/MiMo-Audio-Tokenizer in the local Hugging Face hub cache.

Nothing is downloaded. The cache's layout is the hub's: models--OWNER--NAME/refs/main holds the commit, the model is in
models--OWNER--NAME/snapshots/COMMIT.
"""

import logging
import os
from os import PathLike
from os.path import isfile  # False for names that are too long, where Path.is_file raises
from pathlib import Path

from mimo_audio.errors import ModelError

LOG = logging.getLogger(__name__)
OWNER = "XiaomiMiMo"
TOKENIZER = f"{OWNER}/MiMo-Audio-Tokenizer"
RELEASES = (TOKENIZER, f"{OWNER}/MiMo-Audio-7B-Base", f"{OWNER}/MiMo-Audio-7B-Instruct")


def find_folder(model: str | PathLike[str], kind: str) -> Path:
    """The folder of a model that is given as one or by its name on the hub; kind ("tokenizer") is for the error.

    Raises ModelError if there is no config.json, which says how to fetch a release that is not there.
    """
    folder = Path(model)
    if isfile(folder / "config.json"):
        return folder
    name = os.fspath(model)
    if snapshot := cached(name):
        LOG.debug("%s: found in the hub cache, %s", name, snapshot)
        return snapshot
    release = next((known for known in RELEASES if name in (known, known.partition("/")[2])), None)
    hint = f"; hf download {release} --local-dir {release.partition('/')[2]} fetches it" if release else ""
    raise ModelError(f"no {kind} at {folder}: missing config.json{hint}")


def cached(name: str) -> Path | None:
    """The folder of OWNER/NAME's main revision in the local hub cache, None if it is not there."""
    if name.count("/") != 1 or name.startswith(("/", ".", "~")):
        return None
    repository = cache() / f"models--{name.replace('/', '--')}"
    try:
        commit = (repository / "refs" / "main").read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return None
    snapshot = repository / "snapshots" / commit
    return snapshot if commit and isfile(snapshot / "config.json") else None


def cache() -> Path:
    """The hub cache: $HF_HUB_CACHE, $HF_HOME/hub, or the default place."""
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    return Path(os.environ.get("HF_HUB_CACHE") or Path(home, "hub")).expanduser()
