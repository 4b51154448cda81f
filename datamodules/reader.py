"""What every benchmark reader offers: a sequence of clips that opens nothing before a clip's field needs it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import overload

from datamodules.records import Clip


class ClipReader(Sequence[Clip]):
    """The questions of one split, in the benchmark's own order.

    Making a reader reads tables and never media; taking a clip from it makes a record whose frames, sound and masks
    are read on first use. Readers and clips can be sent to other processes.
    """

    @property
    @abstractmethod
    def nulls(self) -> tuple[bool, ...]:
        """For each position, whether the target is not in the clip."""

    @abstractmethod
    def clip(self, index: int, *, visit: int = 0) -> Clip:
        """Make one clip.

        Args:
            index: Position in ``0..len - 1``.
            visit: How often this position was served before. Readers that pick at random use it so that each visit
                picks anew, and the same visit always picks the same.
        """

    def __len__(self) -> int:
        """Number of clips."""
        return len(self.nulls)

    @overload
    def __getitem__(self, index: int) -> Clip: ...

    @overload
    def __getitem__(self, index: slice) -> list[Clip]: ...

    def __getitem__(self, index: int | slice) -> Clip | list[Clip]:
        """The clip, or clips, at a position, on their first visit."""
        chosen = range(len(self))[index]
        return self.clip(chosen) if isinstance(chosen, int) else [self.clip(one) for one in chosen]


class WithoutTruth(ClipReader):
    """The clips of another reader without their ground truth: whatever reads it cannot help an answer."""

    def __init__(self, clips: ClipReader) -> None:
        """Keep the reader.

        Args:
            clips: Where clips come from.
        """
        self._clips = clips

    @property
    def nulls(self) -> tuple[bool, ...]:
        """Which targets are absent is ground truth too."""
        return (False,) * len(self._clips)

    def clip(self, index: int, *, visit: int = 0) -> Clip:
        """The clip, not known to be null, without masks and boxes.

        Args:
            index: As in the other reader.
            visit: As in the other reader.
        """
        clip = self._clips.clip(index, visit=visit)
        return replace(clip, is_null=False, kind=clip.split, mask_source=None, box_source=None, foreground_source=None)
