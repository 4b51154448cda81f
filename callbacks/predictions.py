"""What `predict` leaves behind: the plan, the masks, and a video that shows both.

Per question one folder with `plan.json` (the text, what was read in it, the boxes), `masks/00000.png` and so on (255
where the target is), and `overlay.mp4` with the masks tinted, the keyframes framed and the original sound.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_info
from PIL import Image

from callbacks.film import write_film
from datamodules.records import Rollout


class PredictionWriter(Callback):
    """Writes every prediction into a folder of its own."""

    def __init__(self, *, folder: str | None = None, overlay: bool = True) -> None:
        """Keep the settings.

        Args:
            folder: Where to write; null takes the run folder.
            overlay: Write the video too.
        """
        self.folder = folder
        self.overlay = overlay

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
        run = Path(self.folder or (trainer.log_dir if trainer.loggers else None) or "predictions")
        for rollout in outputs or ():
            if isinstance(rollout, Rollout):
                target = run / folder_name(rollout.clip.id)
                write_prediction(rollout, target, overlay=self.overlay)
                rank_zero_info(f"{rollout.clip.expression!r}: written to {target}")


def folder_name(clip_id: str) -> str:
    """A clip's id as the name of a folder: no separators, no file ending."""
    return re.sub(r"[^\w.-]+", "_", re.sub(r"\.(mp4|mov|avi|mkv|webm)$", "", clip_id)).strip("_.") or "clip"


def write_prediction(rollout: Rollout, folder: Path, *, overlay: bool = True) -> None:
    """Write one prediction.

    Args:
        rollout: With boxes and masks.
        folder: Made when it is missing.
        overlay: Write `overlay.mp4` too.
    """
    (folder / "masks").mkdir(parents=True, exist_ok=True)
    (folder / "plan.json").write_text(json.dumps(plan_record(rollout), indent=2) + "\n")
    if rollout.masks is not None:
        for index in range(rollout.masks.frames):
            mask = rollout.masks.union([index])[0]
            Image.fromarray(mask.astype("uint8") * 255).save(folder / "masks" / f"{index:05d}.png")
    if overlay:
        write_film(rollout, folder / "overlay.mp4")


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
