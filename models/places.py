"""No second look: a grounder that takes the place which System 1 has written itself.

For comparison with two systems. A reasoner that was taught `--data.answers places` writes left, top, right and bottom
in percent of the frame where a description would stand; reading the numbers costs nothing and looks at no picture.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import UInt8

from models.grounder import Candidates, Grounder, TextGenerator

_PLACE = re.compile(r"\b(\d{1,3}) (\d{1,3}) (\d{1,3}) (\d{1,3})\b")


def parse_places(text: str) -> list[tuple[int, int, int, int]]:
    """Read places out of a description.

    Args:
        text: Anything, such as "12 30 55 70, 60 10 80 30".

    Returns:
        (left, top, right, bottom) in percent, at most 100 each, in order; turned ones and those without area are left
        out.
    """
    found = [tuple(min(100, int(number)) for number in match.groups()) for match in _PLACE.finditer(text)]
    return [(x1, y1, x2, y2) for x1, y1, x2, y2 in found if x1 < x2 and y1 < y2]


class PlacesGrounder(Grounder):
    """Boxes that the description states."""

    def load(self, reasoner: TextGenerator | None = None) -> None:
        """There are no weights.

        Args:
            reasoner: Not used.
        """

    def find(
        self, images: UInt8[np.ndarray, "images height width 3"], descriptions: Sequence[Sequence[str]]
    ) -> list[list[Candidates]]:
        """Read the places of every description; see `Grounder.find`."""
        height, width = images.shape[1:3]
        scale = torch.tensor([width, height, width, height], dtype=torch.float32) / 100
        found = [[torch.tensor(parse_places(text)).reshape(-1, 4) * scale for text in row] for row in descriptions]
        return [[Candidates(boxes, torch.ones(len(boxes))) for boxes in row] for row in found]
