"""What differs between the benchmarks of a mixture, and what settings of one are called there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields

from datamodules.errors import ConfigError, DataLayoutError


@dataclass(frozen=True)
class Source:
    """One benchmark of a mixture. What is null stays at the default of the benchmark's own data module.

    Attributes:
        root: Its folder, or "avshapes" for the generated one; null takes the folder of its name in `data.root`.
        weight: How often an epoch asks each of its prompts: 1 once, 2 twice, 0.5 half of them, others in every epoch.
            0 drops the source, whose folder need not be there then.
        train_size: Most training prompts, drawn once with the seed.
        null_fraction: Share, 0 to 1, of training prompts whose target is not there.
        test_size: Most clips of each test split; null takes the `test_size` of the mixture.
        test_null_fraction: Share, 0 to 1, of these clips whose target is not there; null for Ref-AVS Bench, where they
            are a split of their own.
        same_questions: Whether every epoch asks what the first one asked.
        fps: Frames per second that stored frames stand for.
        clip_frames: Most frames of a training clip, spread evenly.
        still_frames: How many equal frames a picture is served as; null for the others, which have videos.
        avshapes_sizes: Sizes of the generated benchmark that differ from its defaults, by name.
    """

    root: str | None = None
    weight: float = 1.0
    train_size: int | None = None
    null_fraction: float | None = None
    test_size: int | None = None
    test_null_fraction: float | None = None
    same_questions: bool | None = None
    fps: float | None = None
    clip_frames: int | None = None
    still_frames: int | None = None
    avshapes_sizes: dict[str, int] | None = None


@dataclass(frozen=True)
class Sources:
    """All benchmarks of the mixture.

    Attributes:
        refavs: Ref-AVS Bench.
        revos: ReVOS.
        mevis: MeViS.
        refcocog: RefCOCOg pictures.
    """

    refavs: Source = Source()
    revos: Source = Source()
    mevis: Source = Source()
    refcocog: Source = Source()


_OWN = [field.name for field in fields(Source) if field.name != "weight"]


@contextmanager
def flags_of_source(name: str) -> Iterator[None]:
    """Name a source, and its own flags, in what its data module raises, which knows those of a benchmark alone.

    Args:
        name: The source, by the name of its folder.

    Raises:
        ConfigError: The block has; `data.fps` has become `data.sources.<name>.fps`.
        DataLayoutError: Likewise.
    """
    try:
        yield
    except (ConfigError, DataLayoutError) as error:
        text = str(error)
        renamed = re.sub(rf"\bdata\.({'|'.join(_OWN)})\b", rf"data.sources.{name}.\1", text)
        raise type(error)(renamed if renamed != text else f"data.sources.{name}: {text}") from error
