"""The annotated masks of one ReVOS or MeViS clip, read from the large mask files when asked.

Masks are kept per object, checked, and brought to the size of the frames. Nothing is loaded when this is made or sent
to another process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datamodules.errors import MediaError
from datamodules.json_index import Shape, open_index
from datamodules.masks import MaskTrack
from datamodules.records import Frames
from datamodules.rle import clean_counts


@dataclass(frozen=True)
class ReVOSMasks:
    """Where the masks of a clip are.

    Attributes:
        masks: The file with one entry per object.
        foreground: The file with one entry per video; None where the benchmark has none.
        frames: The clip's frames; their size is the size of every mask.
        kept: Frames of the whole video that the clip shows.
        total: Frames of the whole video.
        clip_id: What error messages call the clip.
    """

    masks: Path
    foreground: Path | None
    frames: Frames
    kept: tuple[int, ...]
    total: int
    clip_id: str

    def objects(self, names: Sequence[str]) -> MaskTrack:
        """The masks of some objects; frames that are not annotated hold no mask.

        Args:
            names: Keys of the objects; none gives a track without objects.

        Raises:
            MediaError: An object is missing from the file, or its masks are damaged.
        """
        if not names:
            return MaskTrack.empty(self.frames.count, self.frames.size)
        columns = [self._column(self._entry(self.masks, name, "lists"), f"{self.masks}, {name}") for name in names]
        return MaskTrack(self.frames.size, tuple(zip(*columns, strict=True)))

    def everything(self, video: str) -> MaskTrack:
        """The union of all objects that anything is asked about, as one object.

        Args:
            video: Name of the video.

        Raises:
            MediaError: The video is missing from the file, or its masks are damaged.
            ValueError: The benchmark has no such file.
        """
        if self.foreground is None:
            raise ValueError(f"{self.clip_id}: this benchmark has no file of all annotated objects")
        entry = self._entry(self.foreground, video, "objects")
        column = self._column(entry.get("masks_rle"), f"{self.foreground}, {video}")
        return MaskTrack(self.frames.size, tuple((counts,) for counts in column))

    def _entry(self, path: Path, key: str, shape: Shape) -> Any:  # noqa: ANN401
        try:
            return open_index(path, shape=shape).read(key)
        except FileNotFoundError:
            raise self._error(f"{path}", "there is no such file") from None
        except KeyError:
            raise self._error(f"{path}", f"there is no entry {key!r}") from None
        except ValueError as error:
            raise self._error(f"{path}, {key}", f"the entry is not valid JSON: {error}") from error

    def _column(self, masks: object, where: str) -> list[bytes | None]:
        if not isinstance(masks, list) or len(masks) != self.total:
            found = f"{len(masks)} masks" if isinstance(masks, list) else type(masks).__name__
            raise self._error(where, f"expected one mask for each of the {self.total} frames, found {found}")
        try:
            return [clean_counts(masks[index], self.frames.size) for index in self.kept]
        except ValueError as error:
            raise self._error(where, str(error)) from error

    def _error(self, where: str, problem: str) -> MediaError:
        return MediaError(
            f"{self.clip_id}: masks in {where}: {problem}. Restore the file or set --data.on_bad_sample skip."
        )
