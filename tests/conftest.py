"""Markers shared by all tests: `cuda` tests run only when asked for (pytest -m cuda) and then need a GPU."""

import pytest
import torch


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "cuda" in (config.option.markexpr or ""):
        if not torch.cuda.is_available():
            pytest.exit("pytest -m cuda needs a GPU, and torch sees none", returncode=1)  # a promised GPU never skips
        return
    selected = [item for item in items if not item.get_closest_marker("cuda")]
    config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("cuda")])
    items[:] = selected
