"""Which settings of a data module cannot work, all at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from datamodules.errors import ConfigError

_AT_LEAST_ONE = (
    "prompts_per_step",
    "val_batch_size",
    "glance_frames",
    "glance_max_pixels",
    "close_up_max_pixels",
    "train_size",
    "val_size",
    "test_size",
    "clip_frames",
    "eval_clip_frames",
    "still_frames",
    "answer_keyframes",
)
_AT_LEAST_ZERO = ("seed", "num_workers", "avshapes_seed")
_SHARES = ("null_fraction", "val_null_fraction", "test_null_fraction")


def check_settings(settings: Mapping[str, object], *, known_splits: Sequence[str]) -> None:
    """Refuse numbers out of range and unknown test splits.

    Args:
        settings: Settings by name; others than those of a data module are not looked at. None stands for "no limit" or
            "as it is".
        known_splits: Test splits that the benchmark has.

    Raises:
        ConfigError: Names every setting that cannot work, with the flag that sets it.
    """
    problems = [*_too_low(settings, _AT_LEAST_ONE, 1), *_too_low(settings, _AT_LEAST_ZERO, 0)]
    for name in _SHARES:
        share = settings.get(name)
        if isinstance(share, int | float) and not 0 <= share <= 1:
            problems.append(f"data.{name} is {share}; it is a share. Set --data.{name} to 0 to 1, or null.")
    fps = settings.get("fps")
    if isinstance(fps, int | float) and fps <= 0:
        problems.append(f"data.fps is {fps}; frames per second are above 0. Set --data.fps 1.")
    asked = settings.get("test_splits")
    unknown = [split for split in asked if split not in known_splits] if isinstance(asked, tuple) else []
    if unknown:
        problems.append(f"data.test_splits names {', '.join(unknown)}; the benchmark has {', '.join(known_splits)}.")
    if problems:
        raise ConfigError("\n".join(problems))


def _too_low(settings: Mapping[str, object], names: Sequence[str], lowest: int) -> list[str]:
    return [
        f"data.{name} is {value}; it must be at least {lowest}. Set --data.{name} {lowest} or more."
        for name in names
        if isinstance(value := settings.get(name), int) and value < lowest
    ]
