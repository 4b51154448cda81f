"""What System 1 is asked, one versioned template per way of asking.

The templates are our own. They name the answer form of `models.plan` and give no example times, so that none can be
copied into an answer; nothing about the ground truth enters them.
"""

from __future__ import annotations

from dataclasses import dataclass

from datamodules.errors import ConfigError
from datamodules.records import Clip

_FORM = (
    "Think first, inside <think> </think>. Then answer inside <answer> </answer> with one JSON object per moment, "
    'with the keys "start_time" and "end_time" (mm:ss.ff, at most a second apart) and "description". '
    'If the target does not exist in this video, answer {{"absent": true}} instead.'
)

_PICK = (
    "Choose up to {max_keyframes} moments, spread over the video, in which the target is large, sharp and not hidden. "
    "For each, describe the target so that somebody who sees only that one silent image finds it: appearance and "
    "position, no sounds, no order of events."
)


@dataclass(frozen=True)
class PromptTemplate:
    """A way of asking.

    Attributes:
        name: What the configuration calls it.
        version: Raised whenever the wording changes, because scores depend on it.
        system: System message; empty for none.
        question: User text after the media, with the fields {expression}, {duration} and {max_keyframes}.
    """

    name: str
    version: int
    system: str
    question: str

    def render(self, clip: Clip, *, max_keyframes: int) -> str:
        """The user text for one clip; the duration is given in seconds."""
        return self.fill(clip.expression, clip.duration_s, max_keyframes)

    def fill(self, expression: str, duration_s: float, max_keyframes: int) -> str:
        """The user text for any expression."""
        return self.question.format(expression=expression, duration=f"{duration_s:.1f}", max_keyframes=max_keyframes)


_TEMPLATES = (
    PromptTemplate(
        name="refavs",
        version=1,
        system="You watch videos, listen to their sound, and point out objects in them.",
        question=(
            "The video lasts {duration} seconds; its sound is part of it. Find the object that this refers to: "
            f'"{{expression}}". It may depend on what is heard, when, how loud or how high. {_PICK} {_FORM}'
        ),
    ),
    PromptTemplate(
        name="revos",
        version=1,
        system="You watch videos, reason about what happens in them, and point out objects in them.",
        question=(
            "The video lasts {duration} seconds. Find the object or objects that answer this: "
            f'"{{expression}}". It may take knowledge of the world or of the whole course of events. {_PICK} {_FORM}'
        ),
    ),
    PromptTemplate(name="short", version=1, system="", question="find {expression}"),
)

TEMPLATES = {template.name: template for template in _TEMPLATES}


def choose_template(name: str, clip: Clip) -> PromptTemplate:
    """The named template, or with "auto" the one for the clip's task; a silent video is not asked about its sound.

    Raises:
        ConfigError: No template has this name.
        MediaError: The sound of a video file cannot be read.
    """
    if name == "auto":
        has_sound = clip.task == "refavs" or (clip.task == "video" and clip.audio is not None)
        name = "refavs" if has_sound else "revos"
    if name not in TEMPLATES:
        raise ConfigError(
            f"model.reasoner.template: expected auto or one of {', '.join(sorted(TEMPLATES))}, found {name!r}. "
            "Set --model.reasoner.template auto."
        )
    return TEMPLATES[name]
