"""What the policy writes and what it earns, as a table: to read a run, read its completions."""

from __future__ import annotations

from collections.abc import Sequence

import lightning as L
import rich
from lightning.pytorch.callbacks import Callback
from rich.table import Table

from callbacks.media import escape, log_text, markdown_table
from lightning_modules.records import GroupRecord


class RolloutTable(Callback):
    """Logs completions with every reward term, the total and the advantage."""

    def __init__(
        self,
        *,
        every_n_steps: int = 8,
        prompts: int = 2,
        completions: int = 4,
        max_characters: int = 600,
        console: bool = False,
    ) -> None:
        """Keep the settings.

        Args:
            every_n_steps: Training steps (rollouts) between two tables; 0 makes none.
            prompts: Prompts per table.
            completions: Completions per prompt, the first ones of the group.
            max_characters: Longest prompt or completion shown; the middle of a longer one is left out.
            console: Print the tables too.
        """
        self.every_n_steps = every_n_steps
        self.prompts = prompts
        self.completions = completions
        self.max_characters = max_characters
        self.console = console

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Make a table when it is time; modules without rollouts have none."""
        groups: Sequence[GroupRecord] = getattr(pl_module, "last_groups", ())
        step = trainer.fit_loop.epoch_loop.total_batch_idx
        if not groups or not trainer.is_global_zero or not self.every_n_steps or step % self.every_n_steps:
            return
        header, rows = self._rows(groups[: self.prompts])
        log_text(trainer, "rollouts", markdown_table(header, [[escape(cell) for cell in row] for row in rows]), step)
        if self.console:
            table = Table(*header, title=f"rollouts of step {step}", show_lines=True)
            for row in rows:
                table.add_row(*(cell.replace("[", r"\[") for cell in row))
            rich.get_console().print(table)

    def _rows(self, groups: Sequence[GroupRecord]) -> tuple[list[str], list[list[str]]]:
        terms = list(groups[0].rewards.values)
        header = ["prompt", "completion", *terms, "reward", "advantage"]
        rows = []
        for group in groups:
            values = group.rewards.values
            for index, rollout in enumerate(group.rollouts[: self.completions]):
                question = f"{rollout.clip.expression} ({rollout.clip.kind}, {rollout.clip.id})" if index == 0 else ""
                scores = ["-" if (value := values[term][index]) is None else f"{value:.2f}" for term in terms]
                total, advantage = group.rewards.totals[index], group.advantages[index]
                text = rollout.text + (" [cut off]" if rollout.is_truncated else "")
                rows.append([self._shown(question), self._shown(text), *scores, f"{total:.2f}", f"{advantage:+.2f}"])
        return header, rows

    def _shown(self, text: str) -> str:
        if len(text) <= self.max_characters:
            return text
        half = self.max_characters // 2
        return f"{text[:half]} [...] {text[-half:]}"
