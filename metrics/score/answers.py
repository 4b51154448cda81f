"""What the scorer says about one expression: its scores, or why it has none, and what looked odd."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from metrics.refavs_scores import RefAVSParts
from metrics.video_parts import VideoParts


class Problem(StrEnum):
    """Why an expression could not be scored."""

    NO_VIDEO = "no folder of the video"
    NO_EXPRESSION = "no folder of the expression"
    NO_FRAME = "a frame is missing"
    UNREADABLE = "a picture cannot be read"
    WRONG_SIZE = "a mask has another size than the ground truth"
    UNEVEN_SIZES = "masks of one expression have different sizes"


class Oddity(StrEnum):
    """What was scored as it is and should be known."""

    COLOR = "not single-channel: read as gray, as the official program does"
    NOT_255 = (
        "stored with other values than 0 and 255: any but 0 is foreground (ReVOS: R and A official count them as they"
        " are)"
    )
    RESIZED = "of another size than the ground truth: both are brought to 256 x 256, each from its own"
    NOT_PNG = "not PNG data"
    SIXTEEN_BITS = "16 bits: the upper 8 are read, as the official program does"
    LOST_VALUES = (
        "16 bits with values of 1 to 255, of which 8 bits leave 0: read as background, as the official program does"
    )
    LOST_COLORS = (
        "not single-channel, with marks in the alpha channel or in colors next to black: gray has none of them, which"
        " is how the official program reads them"
    )


class UnusableAnswer(Exception):  # noqa: N818 (an answer, not a fault of the program)
    """An expression that cannot be scored.

    Attributes:
        problem: Which kind.
        detail: The file or folder, and what was found.
    """

    def __init__(self, problem: Problem, detail: str) -> None:
        """Keep what is wrong.

        Args:
            problem: Which kind.
            detail: The file or folder, and what was found.
        """
        super().__init__(f"{problem}: {detail}")
        self.problem = problem
        self.detail = detail


@dataclass(frozen=True)
class Answer:
    """One scored expression.

    Attributes:
        name: The expression, as `<video>/<expression>`.
        split: The benchmark's own name of the split.
        group: Group of the official averages.
        position: Place in the table.
        objects: How many objects it is about.
        frames: Frames of the video.
        parts: Its scores; None when there is a problem.
        problem: Why there are none.
        detail: The file or folder of the problem.
        oddities: What was scored as it is, with the first file of each kind.
    """

    name: str
    split: str
    group: str
    position: int
    objects: int
    frames: int
    parts: RefAVSParts | VideoParts | None = None
    problem: Problem | None = None
    detail: str = ""
    oddities: tuple[tuple[Oddity, str], ...] = ()


def problems_by_kind(answers: Iterable[Answer]) -> dict[str, list[str]]:
    """Names of the expressions that could not be scored, with what was found, by kind of problem."""
    found: dict[str, list[str]] = {}
    for answer in answers:
        if answer.problem is not None:
            found.setdefault(str(answer.problem), []).append(f"{answer.name}: {answer.detail}")
    return found


def oddities_by_kind(answers: Iterable[Answer]) -> dict[str, list[str]]:
    """Names of the expressions with something odd, and the first file that is, by kind."""
    found: dict[str, list[str]] = {}
    for answer in answers:
        for oddity, file in answer.oddities:
            found.setdefault(str(oddity), []).append(f"{answer.name}: {file}")
    return found
