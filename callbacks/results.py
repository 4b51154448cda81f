"""The tables of a `test` or `validate` command, on the screen and as files that say where the numbers come from.

Two tables: means over clips, and the averages that the benchmark's own program forms. `results.json` has every number
and the provenance, `results.md` the tables, `clips.jsonl` one line per clip. Scores are stored in 0..1.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import lightning as L
import rich
from lightning.pytorch.callbacks import Callback

from callbacks.media import markdown_table
from callbacks.provenance import provenance
from callbacks.summary import clip_values
from lightning_modules.evaluation import Evaluation, of_all_processes
from metrics.tables import MARGIN, console_table, nested, official_table

_COLUMNS = {"jf": "J&F", "j": "J", "f": "F", "s": "S", "null_accuracy": "null right", "false_absent": "wrongly absent"}


class ResultsWriter(Callback):
    """Prints one table per evaluation and writes it beside the logs."""

    def __init__(self, *, enabled: bool = True) -> None:
        """Keep the setting.

        Args:
            enabled: False prints and writes nothing.
        """
        self.enabled = enabled

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Report a test."""
        self._report(trainer, getattr(pl_module, "last_test", None), "test/")

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Report a validation that was asked for by itself, not those within a training."""
        if trainer.state.fn == "validate":
            self._report(trainer, getattr(pl_module, "last_validation", None), "val/")

    def _report(self, trainer: L.Trainer, evaluation: Evaluation | None, prefix: str) -> None:
        if evaluation is None or not self.enabled:
            return
        run = trainer.log_dir if trainer.loggers else None
        limits = remarks(trainer, prefix)
        if not trainer.is_global_zero:
            return
        header, rows = score_table(evaluation, prefix)
        console = rich.get_console()
        console.print(console_table(header, rows, f"{prefix.strip('/')}, {len(evaluation.results)} clips, {MARGIN}"))
        for task, scores in evaluation.official.items():
            console.print(console_table(*official_table(scores), f"{task}: official"))
        for remark in limits:
            console.print(f"not comparable with published numbers: {remark}", soft_wrap=True, highlight=False)
        if run is not None:
            write_results(Path(run), trainer, evaluation, prefix, limits)
            console.print(f"written to {Path(run) / 'results.md'} and .json", soft_wrap=True, highlight=False)


def score_table(evaluation: Evaluation, prefix: str) -> tuple[list[str], list[list[str]]]:
    """Header and rows: one row per kind of clip, then all together.

    Args:
        evaluation: What was measured.
        prefix: What its keys begin with.

    Returns:
        Cells as text; "-" where a score is not defined for a kind.
    """
    metrics = evaluation.metrics
    kinds = sorted({result.kind for result in evaluation.results})
    names = [name for name in _COLUMNS if any(f"{prefix}{kind}{name}" in metrics for kind in ["", *_slashed(kinds)])]
    rows = []
    for kind, label in [*zip(_slashed(kinds), kinds, strict=True), ("", "all")]:
        count = sum(result.kind == label for result in evaluation.results) if kind else len(evaluation.results)
        values = ((name, metrics.get(f"{prefix}{kind}{name}")) for name in names)
        rows.append([label, str(count), *(_shown(name, value) for name, value in values)])
    return ["clips", "n", *(_COLUMNS[name] for name in names)], rows


def write_results(run: Path, trainer: L.Trainer, evaluation: Evaluation, prefix: str, limits: Sequence[str]) -> None:
    """Write the three files, `results.json` when the others are there.

    Args:
        run: Folder to write to.
        trainer: For the provenance.
        evaluation: What was measured.
        prefix: What its keys begin with.
        limits: From `remarks`.
    """
    source = provenance(trainer, run)
    content = {
        "metrics": evaluation.metrics,
        "official": {task: nested(scores) for task, scores in evaluation.official.items()},
        "clips": len(evaluation.results),
        "not_comparable": list(limits),
        "provenance": source,
    }
    header, rows = score_table(evaluation, prefix)
    lines = ["# Results", "", f"Means over clips; {MARGIN}.", "", markdown_table(header, rows)]
    for task, scores in evaluation.official.items():
        table = markdown_table(*official_table(scores))
        lines += ["", f"## {task}: averaged as its own program does", "", table]
    lines += ["", *(f"- not comparable with published numbers: {limit}" for limit in limits)]
    lines += [f"- {name}: {value}" for name, value in source.items()]
    (run / "results.md").write_text("\n".join(lines) + "\n")
    with (run / "clips.jsonl").open("w") as file:
        for result in evaluation.results:
            values = {name.partition("/")[2]: value for name, value in clip_values(result).items()}
            values = {name: value for name, value in values.items() if f"{prefix}{name}" in evaluation.metrics}
            row = {"clip": result.clip_id, "kind": result.kind, "text": result.text, **values}
            file.write(json.dumps(row) + "\n")
    # Last and at once: whoever finds it finds the others whole.
    staged = run / ".results.json.partial"
    staged.write_text(json.dumps(content, indent=2) + "\n")
    staged.replace(run / "results.json")


def remarks(trainer: L.Trainer, prefix: str) -> list[str]:
    """What keeps the numbers of a pass from being those of a whole split; every process must call it.

    Args:
        trainer: Whose data module is asked.
        prefix: "val/" or "test/".
    """
    data, size = getattr(trainer, "datamodule", None), "val_size" if prefix == "val/" else "test_size"
    limits = {
        size: "a part of each split was drawn",
        "eval_clip_frames": "frames were left out",
    }
    found = [
        f"{where}.{name} is {value}: {what}"
        for name, what in limits.items()
        for where, value in _settings_of(data, name).items()
    ]
    skipped = len(set(of_all_processes(getattr(data, "skipped", ()))))
    return found + ([f"{skipped} clips could not be read and were left out"] if skipped else [])


def _settings_of(data: object, name: str) -> dict[str, object]:
    """A setting of a data module, and of those sources of a mixture that have another; what is not set is left out."""
    shared = getattr(data, name, None)
    parts: Mapping[str, object] = getattr(data, "parts", {})
    values = {"data": shared} | {f"data.sources.{part}": getattr(own, name, None) for part, own in parts.items()}
    return {where: value for where, value in values.items() if value and (where == "data" or value != shared)}


def _shown(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if name == "s" else f"{100 * value:.1f}"


def _slashed(kinds: Sequence[str]) -> list[str]:
    return [f"{kind}/" for kind in kinds]
