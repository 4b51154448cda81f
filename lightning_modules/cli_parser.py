"""What the command line is parsed with, and how its result is kept."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

import lightning as L
from lightning.pytorch.cli import LightningArgumentParser, SaveConfigCallback

from lightning_modules.cli_messages import one_line


class OneLineParser(LightningArgumentParser):
    """A parser whose error is one line without the usage text.

    Attributes:
        known_keys: Dotted keys that are valid at the top level of a command.
        arguments: The command line that is parsed.
    """

    known_keys: Sequence[str] = ()
    arguments: Sequence[str] = ()

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print one line and exit with code 2; inside a nested parse pass the full message on."""
        if not self.exit_on_error:
            super().error(message, ex)
        reduced = one_line(message, self.known_keys, self.arguments)
        sys.stderr.write(f"error: {message if '--debug' in self.arguments else reduced}\n")
        self.exit(2)


class SaveRunConfig(SaveConfigCallback):
    """Saves the resolved configuration into the run folder; a run without a logger has none."""

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Write the file, over an older one when a run is taken up again."""
        if trainer.loggers:
            super().setup(trainer, pl_module, stage)
