"""Progress bars of long work: on a terminal only, and only where the package's log shows notes (level INFO)."""

import logging
from typing import Any

LOG = logging.getLogger("mimo_audio")


def progress_bar(items: Any = None, *, shown: bool = True, **options: Any) -> Any:
    """A tqdm bar with these options, of `items` if there are any; none unless it is to be `shown`."""
    from tqdm import tqdm

    return tqdm(items, disable=None if shown and LOG.isEnabledFor(logging.INFO) else True, **options)
