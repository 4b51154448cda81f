"""What a check of a folder finds: problems, which stop a run, and warnings, which do not.

Which of the two it is when single clips lack files depends on whether clips may be left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from datamodules.tree import Tree

_EXAMPLES = 3


class Findings:
    """Everything that one check has found.

    Attributes:
        problems: Why the folder cannot be used, one line each.
        warnings: What is odd but usable, and its consequence, one line each.
    """

    def __init__(self, *, may_skip: bool = False) -> None:
        """Begin with nothing.

        Args:
            may_skip: What fewer than half of the clips lack is a warning, because those clips will be left out.
        """
        self.problems: list[str] = []
        self.warnings: list[str] = []
        self._may_skip = may_skip

    def missing(self, what: str, paths: Sequence[Path], is_there: Callable[[Path], bool] = Path.is_dir) -> None:
        """Look for paths, and add one line about those that are not there.

        Args:
            what: What that means, such as "clips have no sound".
            paths: Where to look.
            is_there: Says whether a path is what it should be.
        """
        self.lacking(what, [str(path) for path in paths if not is_there(path)], len(paths))

    def lacking(self, what: str, gone: Sequence[str], total: int) -> None:
        """Add one line about what is not there, or none when nothing is gone.

        Args:
            what: As in `missing`.
            gone: What is not there.
            total: How many there should be.
        """
        if not gone:
            return
        more = ", ..." if len(gone) > _EXAMPLES else ""
        line = f"{len(gone)} of {total} {what}; first: {', '.join(gone[:_EXAMPLES])}{more}"
        if self._may_skip and 2 * len(gone) < total:
            self.warnings.append(f"{line}; such clips are left out")
        else:
            self.problems.append(line)

    def refuse(self, tree: Tree, base: Path) -> None:
        """Stop where there are problems.

        Args:
            tree: Which benchmark the folder should hold.
            base: The folder.

        Raises:
            DataLayoutError: There are; names them all.
        """
        if self.problems:
            raise tree.error(base, self.problems)
