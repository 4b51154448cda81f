"""Known noise is dropped, everything else passes."""

import logging
import warnings

import pytest
from lightning.pytorch.utilities import rank_zero_info

from lightning_modules.quiet import quiet


@pytest.fixture(autouse=True)
def _restored() -> None:
    with warnings.catch_warnings():
        yield
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch.trainer.connectors.checkpoint_connector"):
        logging.getLogger(name).filters.clear()


def test_only_known_lines_are_dropped(caplog: pytest.LogCaptureFixture) -> None:
    quiet()
    quiet()
    with caplog.at_level(logging.INFO):
        rank_zero_info("GPU available: False, used: False")
        rank_zero_info("adapter written to runs/refavs/version_0/adapter")
    assert [record.getMessage() for record in caplog.records] == ["adapter written to runs/refavs/version_0/adapter"]


def test_only_known_warnings_are_dropped() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        quiet()
        warnings.warn("Found 475 module(s) in eval mode at the start of training. This may", stacklevel=1)
        warnings.warn("Found a problem", stacklevel=1)
    assert [str(warning.message) for warning in caught] == ["Found a problem"]
