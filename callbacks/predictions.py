"""What `predict` leaves behind.

For a video file one folder with `plan.json` (the text, what was read in it, the boxes), `masks/00000.png` and so on
(255 where the target is), and `overlay.mp4` with the masks tinted, the keyframes framed and described, and the original
sound. For a benchmark `masks/<split>/<video>/<expression>/<frame>.png`, which is what the benchmarks' servers and
`python -m metrics.score` take, and `plans.jsonl` with one line per expression.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import rich
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_info
from PIL import Image

from callbacks.film import write_film
from datamodules.records import Rollout


class PredictionWriter(Callback):
    """Writes every prediction where it belongs."""

    def __init__(self, *, folder: str | None = None, overlay: bool = True, benchmark_overlays: int = 0) -> None:
        """Keep the settings.

        Args:
            folder: Where to write; null takes the run folder.
            overlay: Write the film of a video file too.
            benchmark_overlays: Films of so many expressions of a benchmark, on each process.
        """
        self.folder = folder
        self.overlay = overlay
        self.benchmark_overlays = benchmark_overlays
        self._written: dict[tuple[str, str], int] = {}

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Forget the answers of an earlier command in the same folder; lines are added to these files one by one."""
        run = self._run(trainer)
        self._written = {}
        for path in run.glob("plans*.jsonl"):
            file = re.fullmatch(r"plans(?:_(\d+))?\.jsonl", path.name)
            # There may have been more processes then: each removes a share, its own file included.
            if file and int(file[1] or 0) % trainer.world_size == trainer.global_rank:
                path.unlink()

    def on_predict_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,  # noqa: ANN401 (whatever the module predicts)
        batch: object,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write what the module has just predicted; anything but rollouts is left alone."""
        run = self._run(trainer)
        for rollout in outputs or ():
            if not isinstance(rollout, Rollout):
                continue
            if rollout.clip.task == "video":
                target = run / folder_name(rollout.clip.id)
                write_prediction(rollout, target, overlay=self.overlay)
                rank_zero_info(f"{rollout.clip.expression!r}: written to {target}")
            else:
                self._write_answer(rollout, run, trainer.global_rank)

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say where the answers to a benchmark are, and how they are scored."""
        run = self._run(trainer)
        if not trainer.is_global_zero:
            return
        for (task, split), count in self._written.items():
            place = run / "masks" / split
            lines = [f"{task} {split}: {count} answers of this process written to {place}"]
            root = getattr(getattr(trainer, "datamodule", None), "data_root", None)
            if root is not None:
                lines.append(
                    f"  python -m metrics.score {task} --root {root} --predictions {place} --splits {split}"
                    f" --out {run / f'scores_{split}.json'}"
                )
            for line in lines:
                rich.get_console().print(line, soft_wrap=True, highlight=False, markup=False)

    def _run(self, trainer: L.Trainer) -> Path:
        # Asking for the folder of the logs involves all processes, so every one of them comes here equally often.
        return Path(self.folder or (trainer.log_dir if trainer.loggers else None) or "predictions")

    def _write_answer(self, rollout: Rollout, run: Path, rank: int) -> None:
        clip = rollout.clip
        folder = run / "masks" / clip.split / clip.video / clip.expression_id
        write_masks(rollout, folder, clip.frame_names)
        name = "plans.jsonl" if rank == 0 else f"plans_{rank}.jsonl"
        with (run / name).open("a", encoding="utf-8") as file:
            record = {"split": clip.split, "expression_id": clip.expression_id, **plan_record(rollout)}
            file.write(json.dumps(record) + "\n")
        count = sum(self._written.values())
        if count < self.benchmark_overlays:
            (run / "overlays").mkdir(exist_ok=True)
            write_film(rollout, run / "overlays" / f"{folder_name(clip.id)}.mp4")
        self._written[clip.task, clip.split] = self._written.get((clip.task, clip.split), 0) + 1


def folder_name(clip_id: str) -> str:
    """A clip's id as the name of a folder: no separators, no file ending."""
    return re.sub(r"[^\w.-]+", "_", re.sub(r"\.(mp4|mov|avi|mkv|webm)$", "", clip_id)).strip("_.") or "clip"


def write_prediction(rollout: Rollout, folder: Path, *, overlay: bool = True) -> None:
    """Write one prediction about a video file.

    Args:
        rollout: With boxes and masks.
        folder: Made when it is missing.
        overlay: Write `overlay.mp4` too.
    """
    write_masks(rollout, folder / "masks", [f"{index:05d}" for index in range(rollout.clip.frames.count)])
    (folder / "plan.json").write_text(json.dumps(plan_record(rollout), indent=2) + "\n")
    if overlay:
        write_film(rollout, folder / "overlay.mp4")


def write_masks(rollout: Rollout, folder: Path, names: Sequence[str]) -> None:
    """Write the masks of all objects together, one PNG per frame: 255 where the target is, at the original size.

    Args:
        rollout: With masks; nothing is written without.
        folder: Made when it is missing.
        names: What each frame's file is called, without its ending.

    Raises:
        ValueError: There are more or fewer names than masks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if rollout.masks is None:
        return
    for index, name in zip(range(rollout.masks.frames), names, strict=True):
        mask = rollout.masks.union([index])[0]
        Image.fromarray(mask.astype("uint8") * 255).save(folder / f"{name}.png")


def plan_record(rollout: Rollout) -> dict[str, Any]:
    """The answer as plain values: times in seconds, boxes xyxy in pixels of the original frame."""
    clip, plan = rollout.clip, rollout.plan
    found = {} if rollout.grounding is None else {one.frame: one for one in rollout.grounding.keyframes}
    keyframes = []
    for keyframe in plan.keyframes:
        grounded = found.get(keyframe.frame)
        keyframes.append(
            {
                "frame": keyframe.frame,
                "time_s": keyframe.frame / clip.frames.fps,
                "start_s": keyframe.start_s,
                "end_s": keyframe.end_s,
                "description": keyframe.description,
                "boxes": [] if grounded is None else grounded.boxes.round(1).tolist(),
                "scores": [] if grounded is None else grounded.scores.round(4).tolist(),
            }
        )
    visible = [] if rollout.masks is None else [int(area) for area in rollout.masks.areas.sum(axis=1)]
    return {
        "video": clip.video or clip.id,
        "expression": clip.expression,
        "fps": clip.frames.fps,
        "size": list(clip.frames.size),
        "absent": plan.is_absent,
        "problem": plan.parse.problem,
        "keyframes": keyframes,
        "mask_pixels": visible,
        "text": rollout.text,
    }
