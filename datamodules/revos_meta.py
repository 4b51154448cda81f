"""The tables of ReVOS: which videos a split has, their frames, and what is asked about them.

Only tables are read here, no picture and no mask. The order of a video's frames is the table's; the official training
code sorts them, which is the same thing in a sorted table, and `datamodules.layout` says when one is not.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datamodules.tree import Tree

SPLITS = ("train", "valid")
KINDS = ("referring", "reasoning", "non-existent")
"""What ``type_id`` 0, 1 and 2 stand for."""

MASKS = "mask_dict.json"
FOREGROUND = "mask_dict_foreground.json"

TREE = Tree(
    command="revos",
    title="ReVOS",
    picture="""
<root>/meta_expressions_train_.json                     (the underscore before .json may be missing)
<root>/meta_expressions_valid_.json
<root>/mask_dict.json
<root>/mask_dict_foreground.json                        (optional; the robustness score needs it)
<root>/JPEGImages/<video>/<frame>.jpg                   (or <root>/<video>/<frame>.jpg; <video> contains slashes)
""",
    markers=tuple(f"meta_expressions_{split}{end}.json" for split in SPLITS for end in ("_", "")),
    folders=("ReVOS", "revos"),
)


@dataclass(frozen=True, slots=True)
class Question:
    """One expression about one video.

    Attributes:
        id: The table's name of the expression within the video.
        text: As annotated.
        annotations: Keys of the targets in ``mask_dict.json``; None when the table does not say.
        type_id: 0 referring, 1 reasoning, 2 non-existent.
    """

    id: str
    text: str
    annotations: tuple[str, ...] | None
    type_id: int

    @property
    def is_null(self) -> bool:
        """True when the target is not in the video."""
        return self.type_id == KINDS.index("non-existent") or self.annotations == ()

    @property
    def kind(self) -> str:
        """Group that results are reported by."""
        return KINDS[-1] if self.is_null else KINDS[self.type_id]

    @property
    def group(self) -> str:
        """Group of the official averages, which look at the type alone."""
        return KINDS[self.type_id]


@dataclass(frozen=True, slots=True)
class Video:
    """One video of a split.

    Attributes:
        name: ``<source>/.../<name>``, with slashes; also its folder.
        frames: File names without ending, in time order.
        questions: What is asked about it.
    """

    name: str
    frames: tuple[str, ...]
    questions: tuple[Question, ...]


def meta_path(base: Path, split: str) -> Path:
    """The table of a split, with or without the underscore that the release has before the ending.

    Args:
        base: Folder that holds the table.
        split: train or valid.

    Raises:
        DataLayoutError: There is no table for this split.
    """
    names = [f"meta_expressions_{split}_.json", f"meta_expressions_{split}.json"]
    for name in names:
        if (base / name).is_file():
            return base / name
    raise TREE.error(base, [f"there is neither {names[0]} nor {names[1]}"])


def read_videos(base: Path, split: str) -> list[Video]:
    """Read the table of a split.

    Args:
        base: Folder that holds the table.
        split: train or valid.

    Returns:
        Videos in the order of the table; those without a question are included.

    Raises:
        DataLayoutError: There is no table, it is no JSON, or entries lack what is needed; names them all.
    """
    return read_table(meta_path(base, split), TREE, base)


def read_table(path: Path, tree: Tree, base: Path) -> list[Video]:
    """Read a table of this form; MeViS has the same without types.

    Args:
        path: The table.
        tree: The benchmark's tree, for messages.
        base: Folder that the tree begins at.

    Returns:
        Videos in the order of the table; those without a question are included.

    Raises:
        DataLayoutError: The table is no JSON, names something twice, or entries lack what is needed; names them all.
    """
    try:
        with path.open(encoding="utf-8") as file:
            table = json.load(file, object_pairs_hook=_Entries)
    except ValueError as error:
        raise tree.error(base, [f"{path.name} is not valid JSON: {error}"]) from error
    if not isinstance(table, _Entries) or not isinstance(table.get("videos"), dict):
        raise tree.error(base, [f"{path.name} has no mapping called videos"])
    problems = [problem for name, entry in table["videos"].items() for problem in _problems(path.name, name, entry)]
    problems += _repeated(table, path.name)
    if problems:
        raise tree.error(base, problems)
    return [_video(name, entry) for name, entry in table["videos"].items()]


class _Entries(dict[str, Any]):
    """A JSON object, and those of its keys that occur twice, of which only the last is left."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        counts = Counter(key for key, _ in pairs) if len(self) < len(pairs) else {}
        self.repeated = [key for key, count in counts.items() if count > 1]


def _repeated(entries: _Entries, where: str) -> Iterator[str]:
    yield from (f"{where} has two entries called {name}" for name in entries.repeated)
    for name, inner in entries.items():
        if isinstance(inner, _Entries):
            yield from _repeated(inner, f"{where}, {name}")


def _problems(file: str, name: str, entry: Any) -> Iterator[str]:  # noqa: ANN401
    where = f"{file}, video {name}"
    if not isinstance(entry, dict):
        yield f"{where}: expected a mapping, found {type(entry).__name__}"
        return
    frames = entry.get("frames")
    if not isinstance(frames, list) or not frames or not all(isinstance(frame, str) for frame in frames):
        yield f"{where}: frames is {str(frames)[:40]!r}, expected a list of file names without ending"
    questions = entry.get("expressions")
    if not isinstance(questions, dict):
        yield f"{where}: expressions is {str(questions)[:40]!r}, expected a mapping"
        return
    for key, question in questions.items():
        yield from _question_problems(f"{where}, expression {key}", question)


def _question_problems(where: str, question: Any) -> Iterator[str]:  # noqa: ANN401
    if not isinstance(question, dict) or not isinstance(question.get("exp"), str):
        yield f"{where}: expected a mapping with a text called exp"
        return
    annotations = question.get("anno_id")
    if annotations is not None and not isinstance(annotations, list):
        yield f"{where}: anno_id is {str(annotations)[:40]!r}, expected a list"
    type_id = question.get("type_id", 0)
    if type_id not in range(len(KINDS)):
        yield f"{where}: type_id is {type_id!r}, expected 0, 1 or 2"


def _video(name: str, entry: Mapping[str, Any]) -> Video:
    return Video(name, tuple(entry["frames"]), tuple(_question(*item) for item in entry["expressions"].items()))


def _question(key: str, entry: Mapping[str, Any]) -> Question:
    annotations = entry.get("anno_id")
    names = None if annotations is None else tuple(str(annotation) for annotation in annotations)
    return Question(key, entry["exp"], names, entry.get("type_id", 0))
