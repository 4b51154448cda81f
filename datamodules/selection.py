"""Which prompts of a split are used: how many, and how many of them about targets that are not there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from datamodules.errors import ConfigError

HELD_OUT_SEED = 0
"""Validation and test clips are drawn with this seed in every run, so that runs are compared on the same clips."""

_MOST_NULLS = 10_000_000
"""More null prompts than any epoch has; a share just below 1 asks for more than fit into memory."""


def choose(
    nulls: Sequence[bool],
    *,
    size: int | None,
    null_fraction: float | None = None,
    seed: int = 0,
    repeats_nulls: bool = False,
    setting: str = "data.null_fraction",
    split: str = "the split",
) -> tuple[int, ...]:
    """Choose positions of a split.

    With neither a size nor a share, everything is chosen. A share without a size keeps every prompt whose target is
    there and adds as many null prompts as the share asks for. A size is an upper limit: prompts whose target is there
    are never repeated, and when there are too few of them the null prompts shrink along, so that the share holds. A
    larger size contains a smaller one.

    Args:
        nulls: For each position, whether its target is not there.
        size: Most positions to choose; None sets no limit.
        null_fraction: Share of null prompts in 0..1; None leaves the split's own mixture to chance. 1 chooses null
            prompts only.
        seed: Non-negative; decides what is chosen.
        repeats_nulls: Choose null prompts more than once where there are too few of them; otherwise their share is
            smaller then.
        setting: What error messages call the share.
        split: What they call the split.

    Returns:
        Rising positions; repeated ones stand side by side.

    Raises:
        ConfigError: Prompts of one kind were asked for, null or not, and there are none; or
            more null prompts than an epoch can have.
    """
    rng = np.random.default_rng(seed)
    if null_fraction is None:
        order = rng.permutation(len(nulls))
        return tuple(sorted(order[: len(nulls) if size is None else size].tolist()))
    present = rng.permutation([index for index, is_null in enumerate(nulls) if not is_null]).astype(int)
    absent = rng.permutation([index for index, is_null in enumerate(nulls) if is_null]).astype(int)
    if null_fraction > 0 and not len(absent):
        raise ConfigError(
            f"{setting} is {null_fraction}, but none of the {len(nulls)} prompts of {split} asks for something that is"
            f" not there. Set --{setting} null."
        )
    if null_fraction < 1 and not len(present):
        raise ConfigError(
            f"{setting} is {null_fraction}, but all of the {len(nulls)} prompts of {split} ask for something that is"
            f" not there, so none would be chosen. Set --{setting} null."
        )
    kept, added = _shares(len(present), len(absent), size, null_fraction)
    if repeats_nulls and added > _MOST_NULLS:
        raise ConfigError(
            f"{setting} is {null_fraction}: beside the {len(present)} prompts of {split} whose target is there, that"
            f" takes {added} null prompts. Lower --{setting}, limit --data.train_size, or set --{setting} 1 for null"
            " prompts only."
        )
    if repeats_nulls:
        absent = np.resize(absent, added)
    return tuple(sorted([*present[:kept].tolist(), *absent[:added].tolist()]))


def _shares(present: int, absent: int, size: int | None, null_fraction: float) -> tuple[int, int]:
    """How many prompts of each kind to take; the second number may exceed what is there."""
    if null_fraction == 1:
        return 0, absent if size is None else size
    wanted = present if size is None else size - round(null_fraction * size)
    kept = min(present, wanted)
    if size is not None and kept == wanted:
        return kept, size - kept
    return kept, round(kept * null_fraction / (1 - null_fraction))
