"""How a benchmark's folder should look, where it is, and the one error message for all that is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from datamodules.errors import DataLayoutError

_SHOWN = 8


@dataclass(frozen=True)
class Tree:
    """The shape of one benchmark on disk.

    Attributes:
        command: What ``python -m datamodules.layout`` calls the benchmark.
        title: The benchmark's name.
        picture: The expected tree, one entry per line, for people.
        markers: Files that show where the tree begins; any one of them is enough, and `*` stands for any name.
        folders: Folders that archives may wrap the tree in; they are looked into when `root` itself has no marker.
    """

    command: str
    title: str
    picture: str
    markers: tuple[str, ...]
    folders: tuple[str, ...]

    def find(self, root: Path) -> Path:
        """Where the tree begins: the root itself or one of the known folders in it.

        Args:
            root: What the user named.

        Raises:
            DataLayoutError: None of them holds a marker.
        """
        for base in (root, *(root / folder for folder in self.folders)):
            if any(path.is_file() for marker in self.markers for path in base.glob(marker)):
                return base
        wanted = " or ".join(self.markers)
        also = ", ".join(f"{folder}/" for folder in self.folders)
        raise self.error(root, [f"there is no {wanted}, neither here nor in {also}"])

    def error(self, root: Path, problems: Sequence[str]) -> DataLayoutError:
        """One error for everything that is wrong.

        Args:
            root: The folder that was looked at.
            problems: One line each, most telling first; a long list is cut.
        """
        lines = [f"{root} does not hold {self.title} as it should. What is wrong ({len(problems)}):"]
        lines += [f"  - {problem}" for problem in problems[:_SHOWN]]
        if len(problems) > _SHOWN:
            lines.append(f"  - ... and {len(problems) - _SHOWN} more")
        lines += ["Expected:", *(f"  {line}" for line in self.picture.strip().splitlines())]
        lines.append(f"Found: {_listing(root)}")
        lines.append(
            "Point --data.root at the right folder (--root for metrics.score); a training can leave out single clips"
            " that lack files with --data.on_bad_sample skip. docs/data.md says where to get it, and"
            f" `python -m datamodules.layout {self.command} FOLDER` checks it."
        )
        return DataLayoutError("\n".join(lines))


def _listing(root: Path) -> str:
    if not root.exists():
        return f"no such folder ({root})"
    if not root.is_dir():
        return f"a file, not a folder ({root})"
    names = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in root.iterdir())
    cut = f", ... ({len(names)} entries)" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + cut if names else "an empty folder"
