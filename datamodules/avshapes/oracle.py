"""True descriptions of the targets of a generated benchmark, for supervised training that is labeled as such.

Nobody labels these in a real benchmark: an expression such as "the loudest thing" does not say what the thing looks
like. They come from the truth file, so a comparison that uses them says what perfect descriptions would be worth.
"""

from __future__ import annotations

from pathlib import Path

from datamodules.avshapes.descriptions import group_words
from datamodules.avshapes.truth import Truth, read_truth
from datamodules.records import Clip


def true_description(truth: Truth) -> str:
    """What the targets look like: color and shape of one; the word that only they share, or all names, of several.

    Args:
        truth: With at least one target.
    """
    things = [truth.things[index] for index in truth.targets]
    others = [thing for index, thing in enumerate(truth.things) if index not in truth.targets]
    colors, shapes = {thing.color for thing in things}, {thing.shape for thing in things}
    if len(things) > 1 and len(colors) == 1 and not colors & {thing.color for thing in others}:
        return group_words(color=things[0].color)
    if len(things) > 1 and len(shapes) == 1 and not shapes & {thing.shape for thing in others}:
        return group_words(shape=things[0].shape)
    return " and ".join(f"the {thing.name}" for thing in things)


class TrueDescriptions:
    """The true description of every clip of one tree whose target is there."""

    def __init__(self, root: Path) -> None:
        """Read the truth file.

        Args:
            root: Root of a generated benchmark.

        Raises:
            DataLayoutError: There is no truth file, as in every real download.
        """
        truths = read_truth(root)
        self._words = {_key(t.split, t.clip, t.expression_id): true_description(t) for t in truths if t.targets}

    def __call__(self, clip: Clip, frame: int) -> str:
        """The description of a clip's target, the same on every frame.

        Args:
            clip: From the same tree; its target is there.
            frame: Not used.
        """
        name = clip.expression_id
        # Ref-AVS numbers its rows in front of their category; the truth file keeps the number alone.
        row = str(int(name.partition("_")[0])) if clip.task == "refavs" else name
        return self._words[_key(clip.split, clip.video, row)]


def _key(split: str, clip: str, expression_id: str) -> str:
    return f"{split}/{clip}/{expression_id}"
