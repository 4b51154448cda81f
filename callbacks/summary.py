"""What a training has changed: the first and the last validation side by side, and what to type next.

Both are greedy answers to the same held-out clips. For scores that single clips have, the change comes with a paired
95 % interval over their videos. The training reward is not shown: it moves with the prompts and is no evidence.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import rich
from lightning.pytorch.callbacks import Callback
from rich.table import Table

from callbacks.interval import paired_interval
from lightning_modules.evaluation import ClipResult, Evaluation

_PREFIX = "val/"
_ONE_VALIDATION = (
    "Validated once, after rollout step {}: nothing to compare. --trainer.num_sanity_val_steps -1 also validates "
    "before the first step, --trainer.val_check_interval N every N steps."
)


class FitSummary(Callback):
    """Keeps the first validation, also across resumes, and compares the last one with it when the training ends."""

    def __init__(self, *, enabled: bool = True) -> None:
        """Keep the setting.

        Args:
            enabled: False prints nothing; the file is written all the same.
        """
        self.enabled = enabled
        self._first: dict[str, Any] = {}
        self._last: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        """The first and the newest validation, in plain containers."""
        return {"first": self._first, "last": self._last}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take both from the run that is resumed; it may have nothing left to do but to end."""
        self._first, self._last = state_dict["first"], state_dict["last"]

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep the first and the newest validation; one before the first step is also logged, at step 0."""
        evaluation: Evaluation | None = getattr(pl_module, "last_validation", None)
        if evaluation is None or trainer.state.fn != "fit":
            return
        self._last = as_plain(evaluation)
        self._first = self._first or self._last
        if trainer.sanity_checking:
            for logger in trainer.loggers:
                logger.log_metrics(evaluation.metrics, step=0)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Compare, print and write."""
        folder = trainer.log_dir if trainer.loggers else None
        if not trainer.is_global_zero:
            return
        console = rich.get_console()
        if self._first:
            rows, steps = compare(self._first, self._last), [self._first["rollout_step"], self._last["rollout_step"]]
            if folder is not None:
                text = json.dumps({"rollout_steps": steps, "changes": rows}, indent=2)
                (Path(folder) / "summary.json").write_text(text + "\n")
            if self.enabled:
                console.print(_table(rows, *steps) if steps[0] != steps[1] else _ONE_VALIDATION.format(steps[0]))
        if self.enabled and folder is not None:
            lines = next_commands(Path(folder), getattr(trainer.checkpoint_callback, "last_model_path", ""))
            for line in lines if getattr(pl_module, "pipeline", None) is not None else lines[:2]:
                console.print(line, soft_wrap=True, highlight=False)


def as_plain(evaluation: Evaluation) -> dict[str, Any]:
    """An evaluation as plain containers that a checkpoint may hold: means, values of every clip by key, its video."""
    known = set(evaluation.metrics)
    clips = {
        result.clip_id: {key: value for key, value in clip_values(result).items() if key in known}
        for result in evaluation.results
    }
    videos = {result.clip_id: result.video for result in evaluation.results}
    return {
        "rollout_step": evaluation.rollout_step,
        "metrics": dict(evaluation.metrics),
        "clips": clips,
        "videos": videos,
    }


def clip_values(result: ClipResult) -> dict[str, float]:
    """What one clip adds to each logged mean, by the mean's key; keys it does not count for are left out."""
    values: dict[str, float | bool | None] = {"reward": result.total, "parse_failures": result.is_unparsable}
    values |= {f"rewards/{name}": value for name, value in result.rewards.items()}
    if result.scores is not None:
        scores = result.scores
        ours: dict[str, float | bool | None] = {
            "j": scores.j,
            "f": scores.f,
            "jf": scores.jf,
            "s": scores.s,
            "null_accuracy": scores.is_null_right,
            "null_empty": scores.is_null_empty,
            "false_absent": None if scores.is_null else scores.says_absent,
        }
        values |= {f"{group}{name}": value for group in ("", *_groups(result)) for name, value in ours.items()}
    return {_PREFIX + name: float(value) for name, value in values.items() if value is not None}


def _groups(result: ClipResult) -> tuple[str, str]:
    return f"{result.kind}/", f"{result.task}/"


def compare(first: dict[str, Any], last: dict[str, Any]) -> list[dict[str, Any]]:
    """Every mean that both passes have, with its change and, over videos that count in both, a paired interval.

    Args:
        first: From `as_plain`.
        last: From `as_plain`, of the same clips.

    Returns:
        One row per key: "key", "first", "last", "change", "low", "high" (the interval), "clips" and "videos".
    """
    rows = []
    for key, value in first["metrics"].items():
        if key not in last["metrics"]:
            continue
        both = [clip for clip in first["clips"] if key in first["clips"][clip] and key in last["clips"].get(clip, {})]
        before = np.array([first["clips"][clip][key] for clip in both])
        after = np.array([last["clips"][clip][key] for clip in both])
        videos = [first["videos"][clip] for clip in both]
        low, high = paired_interval(before, after, videos)
        now = last["metrics"][key]
        row = {"key": key, "first": value, "last": now, "change": now - value}
        row |= {"clips": len(both), "videos": len(set(videos))}
        rows.append(row | {"low": None if np.isnan(low) else low, "high": None if np.isnan(high) else high})
    return rows


def next_commands(run: Path, checkpoint: str) -> list[str]:
    """The three commands that follow a training."""
    config = run / "config.yaml"
    weights = f" --ckpt_path {checkpoint}" if checkpoint else ""
    ask = '--data.video VIDEO.mp4 --data.expression "the red circle"'
    return [
        "Next:",
        f"  tensorboard --logdir {run.parent.parent}",
        f"  python train.py test --config {config}{weights}",
        f"  python train.py predict --config {config}{weights} {ask}",
    ]


def _repeats(row: dict[str, Any], rows: list[dict[str, Any]]) -> bool:
    """True for a kind's row that says what the row of all clips says, such as null accuracy of null clips."""
    overall = _PREFIX + row["key"].rpartition("/")[2]
    return any(other["key"] == overall != row["key"] and other["clips"] == row["clips"] for other in rows)


def _table(rows: list[dict[str, Any]], first_step: int, last_step: int) -> Table:
    title = f"held-out clips, greedy answers: before (step {first_step}) and after (step {last_step})"
    table = Table("key", "first", "last", "change", "95 % interval", "clips", title=title)
    for row in rows:
        if row["key"].endswith(("/j", "/f")) or _repeats(row, rows):
            continue
        interval = "" if row["low"] is None else f"{row['low']:+.3f} .. {row['high']:+.3f}"
        numbers = [f"{row['first']:.3f}", f"{row['last']:.3f}", f"{row['change']:+.3f}"]
        table.add_row(row["key"], *numbers, interval, str(row["clips"]))
    return table
