"""What the two systems made of held-out clips, in pictures.

Per clip: the keyframes with the grounder's boxes and the propagated masks above the same frames with the ground truth;
a strip of the target's visible area over time in which the picked frames are marked; and, once, the sound.
"""

from __future__ import annotations

import textwrap

import lightning as L
import numpy as np
from jaxtyping import UInt8
from lightning.pytorch.callbacks import Callback

from callbacks import drawing
from callbacks.media import log_audio, log_image, takes_media
from datamodules.records import Rollout
from lightning_modules.evaluation import ClipResult, Evaluation

_DESCRIPTION_LINES = 2


class MaskOverlays(Callback):
    """Logs pictures of the answers that a validation or test keeps."""

    def __init__(self, *, clips: int = 4, height: int = 168) -> None:
        """Keep the settings.

        Args:
            clips: Clips per validation; the same ones every time. 0 draws none. More than `model.evaluation` keeps
                are not there to be drawn.
            height: Of one frame in the picture, pixels.
        """
        self.clips = clips
        self.height = height
        self._heard: set[str] = set()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw the newest validation."""
        self._draw(trainer, getattr(pl_module, "last_validation", None), "val")

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw the test."""
        self._draw(trainer, getattr(pl_module, "last_test", None), "test")

    def _draw(self, trainer: L.Trainer, evaluation: Evaluation | None, prefix: str) -> None:
        if evaluation is None or not self.clips or not takes_media(trainer):
            return
        results = {result.clip_id: result for result in evaluation.results}
        for rollout in evaluation.rollouts[: self.clips]:
            clip = rollout.clip
            picture = answer_picture(rollout, results.get(clip.id), height=self.height)
            log_image(trainer, f"{prefix}_overlay/{clip.id}", picture, evaluation.rollout_step)
            log_image(trainer, f"{prefix}_keyframes/{clip.id}", time_picture(rollout), evaluation.rollout_step)
            if clip.id not in self._heard and clip.audio is not None:
                log_audio(trainer, f"{prefix}_sound/{clip.id}", clip.audio, evaluation.rollout_step)
                self._heard.add(clip.id)


def answer_picture(
    rollout: Rollout, result: ClipResult | None = None, *, height: int = 168
) -> UInt8[np.ndarray, "height width 3"]:
    """Keyframes with boxes and masks, above the same frames with the ground truth.

    Args:
        rollout: With whatever System 2 filled in.
        result: How the answer scored; None shows no numbers.
        height: Of one frame in the picture, pixels.

    Returns:
        One column per keyframe; for an answer without keyframes the frame on which the target is largest, or the
        first one.
    """
    clip, truth = rollout.clip, rollout.clip.masks
    moments = [keyframe.frame for keyframe in rollout.plan.keyframes] or [_largest(rollout)]
    texts = [keyframe.description for keyframe in rollout.plan.keyframes] or [_verdict(rollout)]
    frames = clip.frames.read(moments)
    boxes = {} if rollout.grounding is None else {one.frame: one.boxes for one in rollout.grounding.keyframes}
    columns = []
    for frame, moment, text in zip(frames, moments, texts, strict=True):
        seen = frame
        if rollout.masks is not None:
            seen = drawing.tint(seen, rollout.masks.union([moment])[0], drawing.PREDICTED)
        if moment in boxes:
            seen = drawing.with_boxes(seen, boxes[moment], drawing.PREDICTED)
        parts = [drawing.fitted(seen, height)]
        if truth is not None:
            true = drawing.with_boxes(frame, truth.boxes(moment), drawing.TRUE)
            parts.append(drawing.fitted(drawing.tint(true, truth.union([moment])[0], drawing.TRUE), height))
        when = f"frame {moment}, {moment / clip.frames.fps:.1f} s"
        columns.append(drawing.captioned(drawing.below(parts), [when, *_wrapped(text, parts[0].shape[1])]))
    return drawing.captioned(drawing.beside(columns), _headline(rollout, result), above=True)


def time_picture(rollout: Rollout) -> UInt8[np.ndarray, "height width 3"]:
    """The target's visible area over the clip, with the picked frames marked."""
    clip = rollout.clip
    areas = np.zeros(clip.frames.count) if clip.masks is None else clip.masks.areas.sum(axis=1).astype(float)
    picks = [keyframe.frame for keyframe in rollout.plan.keyframes]
    legend = f"visible area of the target over {clip.duration_s:.1f} s; picked frames in red"
    return drawing.captioned(drawing.timeline(areas, picks), [legend])


def _largest(rollout: Rollout) -> int:
    truth = rollout.clip.masks
    return int(truth.areas.sum(axis=1).argmax()) if truth is not None and truth.objects else 0


def _verdict(rollout: Rollout) -> str:
    return "said to be absent" if rollout.plan.is_absent else "no usable answer"


def _headline(rollout: Rollout, result: ClipResult | None) -> list[str]:
    lines = [f"{rollout.clip.expression} ({rollout.clip.kind})"]
    if result is not None:
        numbers = [] if result.total is None else [f"reward {result.total:.2f}"]
        scores = result.scores
        if scores is not None and scores.jf is not None:
            numbers.append(f"J&F {100 * scores.jf:.1f}")
        if scores is not None and scores.is_null_right is not None:
            numbers.append("absent: right" if scores.is_null_right else "absent: wrong")
        lines.append(", ".join(numbers))
    lines.append("top: predicted, below: true" if rollout.clip.masks is not None else "predicted")
    return lines


def _wrapped(text: str, width: int) -> list[str]:
    """A description in a fixed number of lines, so that columns keep one height."""
    lines = textwrap.wrap(text, max(8, width // 6), max_lines=_DESCRIPTION_LINES, placeholder=" ...")
    return lines + [""] * (_DESCRIPTION_LINES - len(lines))
