"""What is written under the frames of a film: the question, the keyframe's description, and a time line."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from callbacks import drawing
from datamodules.records import Keyframe, Rollout

_PAPER: drawing.Color = (24, 24, 28)
_INK: drawing.Color = (235, 235, 235)
_FAINT: drawing.Color = (150, 150, 155)
_DESCRIPTION_LINES = 2
_MARGIN = 4


class CaptionBar:
    """The strip under every frame of one film; all strips have one size."""

    def __init__(self, rollout: Rollout) -> None:
        """Measure the strip.

        Args:
            rollout: What the film shows.
        """
        self.rollout = rollout
        height, self.width = rollout.clip.frames.size
        self.text_size = max(11, round(height / 30))
        self.font = ImageFont.load_default(size=self.text_size)
        self.line = round(1.35 * self.text_size)
        self.strip = max(16, height // 16)
        self.height = (1 + _DESCRIPTION_LINES) * self.line + self.strip + 2 * _MARGIN

    def draw(self, frame: int) -> UInt8[np.ndarray, "height width 3"]:
        """The strip under a frame.

        Args:
            frame: 0-based index into the clip.
        """
        page = Image.new("RGB", (self.width, self.height), _PAPER)
        pen = ImageDraw.Draw(page)
        time_s = f"{frame / self.rollout.clip.frames.fps:.1f} s"
        room = self.width - 2 * _MARGIN
        pen.text((self.width - _MARGIN, _MARGIN), time_s, fill=_FAINT, font=self.font, anchor="ra")
        (question,) = self._wrapped(self.rollout.clip.expression, room - self._width(f"  {time_s}"), 1)
        pen.text((_MARGIN, _MARGIN), question, fill=_INK, font=self.font)
        text, color = self._status(frame)
        for number, line in enumerate(self._wrapped(text, room, _DESCRIPTION_LINES), 1):
            pen.text((_MARGIN, _MARGIN + number * self.line), line, fill=color, font=self.font)
        top = self.height - self.strip - _MARGIN
        page.paste(Image.fromarray(self._timeline), (0, top))
        place = round((frame + 0.5) * self.width / self.rollout.clip.frames.count)
        pen.line([(place, top), (place, top + self.strip)], fill=_INK, width=max(1, self.width // 400))
        return np.asarray(page).copy()

    @cached_property
    def _timeline(self) -> UInt8[np.ndarray, "height width 3"]:
        """The predicted area over time, keyframes marked."""
        masks, frames = self.rollout.masks, self.rollout.clip.frames.count
        areas = np.zeros(frames) if masks is None else masks.areas.sum(axis=1).astype(float)
        picks = [keyframe.frame for keyframe in self.rollout.plan.keyframes]
        return drawing.timeline(areas, picks, width=self.width, height=self.strip, color=drawing.PREDICTED)

    def _status(self, frame: int) -> tuple[str, drawing.Color]:
        """What the plan says at a frame; bright while the frame is a keyframe."""
        plan = self.rollout.plan
        if plan.is_absent:
            return "said to be absent", _INK
        if not plan.keyframes:
            return f"no usable answer: {plan.parse.problem}".rstrip(": "), _INK
        past = [keyframe for keyframe in plan.keyframes if keyframe.frame <= frame]
        if not past:
            return f"first keyframe at {self._when(plan.keyframes[0])}", _FAINT
        number = f"keyframe {len(past)} of {len(plan.keyframes)}"
        text = f"{number}, {self._when(past[-1])}: {past[-1].description}"
        return text, drawing.PICKED if past[-1].frame == frame else _FAINT

    def _when(self, keyframe: Keyframe) -> str:
        return f"{keyframe.frame / self.rollout.clip.frames.fps:.1f} s"

    def _width(self, text: str) -> int:
        return int(self.font.getlength(text))

    def _wrapped(self, text: str, room: int, lines: int) -> list[str]:
        """At most so many lines that fit into a width in pixels; what is too long ends in "..."."""
        found = [""]
        for word in text.split():
            longer = f"{found[-1]} {word}".strip()
            if not found[-1] or self._width(longer) <= room:
                found[-1] = longer
            else:
                found.append(word)
        last = " ".join(found[lines - 1 :])
        while last and self._width(last) > room:
            last = f"{last[:-4].rstrip('. ')}..." if len(last) > 4 else ""
        return [*found[: lines - 1], last]
