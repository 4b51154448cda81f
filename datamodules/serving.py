"""What a loader's workers do: take a clip, read ahead what a step will need, and deal with broken files.

Reading ahead keeps slow decoding out of the training process: what a worker has read travels with the clip. A broken
file either stops the run, or its clip is left out by a fixed rule, counted and named; see `on_bad_sample`.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

from torch.utils.data import Dataset

from datamodules.errors import ConfigError, MediaError
from datamodules.lessons import Lesson
from datamodules.reader import ClipReader
from datamodules.records import Clip

OnBadSample = Literal["raise", "skip"]

_CHECKED_AT_ONCE = 16


class Place(NamedTuple):
    """A position in an epoch's list of prompts."""

    epoch: int
    position: int


@dataclass(frozen=True)
class Served:
    """What a worker hands back for one place.

    Attributes:
        clip: The clip, or the lesson about it; None when it was broken and nothing may stand in for it.
        problems: For each broken clip met on the way: its id, and what was wrong.
        failure: What stops the run, if anything does; then there is no clip.
    """

    clip: Clip | Lesson | None
    problems: tuple[tuple[str, str], ...] = ()
    failure: MediaError | None = None


def read_ahead(clip: Clip) -> None:
    """Read what every step needs of a clip, so that it is kept: low-resolution frames, sound and ground truth.

    Args:
        clip: Any clip.

    Raises:
        MediaError: Something cannot be read.
    """
    _ = (clip.glance, clip.audio, clip.masks, clip.boxes)


def check_frames(clip: Clip) -> None:
    """Decode every frame once and keep none: no broken frame can turn up later in a step.

    Args:
        clip: Any clip.

    Raises:
        MediaError: A frame is missing or broken.
    """
    for start in range(0, clip.frames.count, _CHECKED_AT_ONCE):
        chunk = range(start, min(start + _CHECKED_AT_ONCE, clip.frames.count))
        clip.frames.read(chunk, max_pixels=clip.budget.glance_max_pixels)


class Prompts(Dataset[Served], ABC):
    """The prompts of an epoch, served by place."""

    @abstractmethod
    def __len__(self) -> int:
        """Prompts per epoch."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """A digest of the prompts in their order."""

    def check_fingerprint(self, expected: str) -> None:
        """Refuse to go on in the middle of other prompts.

        Args:
            expected: What the fingerprint was when a checkpoint was written.

        Raises:
            ConfigError: It is another one now.
        """
        if expected != self.fingerprint:
            raise ConfigError(
                f"the checkpoint was written in the middle of {len(self)} other prompts: other clips, questions or"
                " frames. Restore the data settings (such as --data.root, --data.null_fraction, --data.clip_frames,"
                " --data.fps, --data.avshapes_seed) to resume, or start a new run from the exported adapter."
            )


class ClipSet(Prompts):
    """The prompts of an epoch, ready to be served by place.

    A prompt that is listed more than once counts as visited more than once per epoch, so that readers which pick at
    random pick something else each time.
    """

    def __init__(
        self,
        reader: ClipReader,
        *,
        chosen: Sequence[int] | None = None,
        same_questions: bool = False,
        on_bad_sample: OnBadSample = "raise",
        replaces_bad: bool = False,
        prefetch: Callable[[Clip], object] = read_ahead,
        teach: Callable[[Clip], Lesson] | None = None,
    ) -> None:
        """Point at the prompts; nothing is read.

        Args:
            reader: Where clips come from.
            chosen: Positions in the reader that make up an epoch, repeats allowed; None takes all, in order.
            same_questions: Every epoch visits what the first one did, so that it asks the same.
            on_bad_sample: With "raise" a broken file is an error. With "skip" every frame of a clip is checked before
                it is served, and a clip with a broken file is left out.
            replaces_bad: What leaving out means: the next prompt of the list stands in (training, where steps have a
                fixed size), or nothing does (evaluation, where a clip must not count twice).
            prefetch: Called on every clip before it is served; a clip that it returns is served instead.
            teach: Makes a lesson of every clip, which is served in its place; None serves the clips.
        """
        self.reader = reader
        self.chosen = tuple(range(len(reader)) if chosen is None else chosen)
        self._same_questions = same_questions
        self._on_bad_sample = on_bad_sample
        self._replaces_bad = replaces_bad
        self._prefetch = prefetch
        self._teach = teach
        totals: dict[int, int] = {}
        self._occurrence = []
        for index in self.chosen:
            self._occurrence.append(totals.get(index, 0))
            totals[index] = totals.get(index, 0) + 1
        self._repeats = totals

    def __len__(self) -> int:
        """Prompts per epoch."""
        return len(self.chosen)

    @cached_property
    def fingerprint(self) -> str:
        """A digest of the prompts in their order: which clips, what is asked, and which frames are served at what pace.

        Where the files are does not count, nor how much of a clip each system may look at. No media is opened.
        """
        digest = hashlib.blake2b(digest_size=16)
        for index in self.chosen:
            clip = self.reader.clip(index)
            served = (clip.id, clip.expression, clip.is_null, clip.frames.count, clip.frames.fps)
            digest.update(repr(served).encode())
        if self._same_questions:
            digest.update(b"same questions")
        return digest.hexdigest()

    def __getitem__(self, place: Place) -> Served:
        """Serve one place.

        Args:
            place: Epoch, and position in the epoch's list.

        Raises:
            MediaError: A file is broken and must not be skipped, or every clip is broken.
        """
        if self._on_bad_sample == "raise":
            return Served(self._ready(place))
        problems: list[tuple[str, str]] = []
        for offset in range(len(self) if self._replaces_bad else 1):
            tried = Place(place.epoch, (place.position + offset) % len(self))
            try:
                return Served(self._ready(tried, checks_frames=True), tuple(problems))
            except MediaError as error:
                problems.append((self._clip(tried).id, str(error)))
        if self._replaces_bad:
            raise MediaError(f"none of the {len(self)} clips can be read; the first problem: {problems[0][1]}")
        return Served(None, tuple(problems))

    def _clip(self, place: Place) -> Clip:
        index = self.chosen[place.position]
        epoch = 0 if self._same_questions else place.epoch
        visit = epoch * self._repeats[index] + self._occurrence[place.position]
        return self.reader.clip(index, visit=visit)

    def _ready(self, place: Place, *, checks_frames: bool = False) -> Clip | Lesson:
        clip = self._clip(place)
        found = self._prefetch(clip)
        clip = found if isinstance(found, Clip) else clip
        if checks_frames:
            check_frames(clip)
        return clip if self._teach is None else self._teach(clip)


class FailuresServed(Dataset[Served]):
    """Clips whose broken files are handed over like clips: what a worker raises, PyTorch turns into a traceback."""

    def __init__(self, clips: Dataset[Served]) -> None:
        """Keep the clips.

        Args:
            clips: What to serve.
        """
        self._clips = clips

    def __getitem__(self, place: Place) -> Served:
        """Serve one place; what is wrong with its files is in `Served.failure`.

        Args:
            place: Epoch, and position in the epoch's list.
        """
        try:
            return self._clips[place]
        except MediaError as error:
            return Served(None, failure=error)
