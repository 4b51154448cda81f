"""Engines by name, and what a micro-batch costs them."""

from types import SimpleNamespace

import pytest

from datamodules.errors import ConfigError
from grpo.engine import PlainEngine
from grpo.engines import build_engine
from grpo.settings import GRPOSettings
from grpo.shared_engine import SharedEngine


def test_one_flag_chooses():
    assert isinstance(build_engine(GRPOSettings(engine="plain")), PlainEngine)
    shared = build_engine(GRPOSettings(rollout_rows=5, merge_adapter=False))
    assert isinstance(shared, SharedEngine)
    assert (shared.rollout_rows, shared.merge_adapter) == (5, False)


def test_an_unknown_engine_is_refused():
    with pytest.raises(ConfigError, match=r"model\.grpo\.engine: expected one of plain, shared, found 'warp'"):
        build_engine(SimpleNamespace(engine="warp"))


def test_tokens_of_a_group():
    """A prompt of 10 with completions of 3 and 5: one row of 10 + 2 + 4, or two rows of 10 + 5."""
    assert SharedEngine().tokens(10, [3, 5]) == 16
    assert PlainEngine().tokens(10, [3, 5]) == 30
