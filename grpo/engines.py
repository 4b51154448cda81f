"""The engines by name."""

from __future__ import annotations

from datamodules.errors import ConfigError
from grpo.engine import Engine, PlainEngine
from grpo.settings import GRPOSettings
from grpo.shared_engine import SharedEngine


def build_engine(settings: GRPOSettings) -> Engine:
    """The engine that the settings name.

    Raises:
        ConfigError: There is none of this name.
    """
    if settings.engine == "shared":
        return SharedEngine(rollout_rows=settings.rollout_rows, merge_adapter=settings.merge_adapter)
    if settings.engine == "plain":
        return PlainEngine()
    raise ConfigError(
        f"model.grpo.engine: expected one of plain, shared, found {settings.engine!r}. Set --model.grpo.engine shared."
    )
