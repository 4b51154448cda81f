"""What is about to run, in one screen: weights, batch arithmetic, where the logs are.

The batch words are used everywhere with the same meaning; here they stand side by side with their products.
"""

from __future__ import annotations

from pathlib import Path

import lightning as L
import rich
from lightning.pytorch.callbacks import Callback
from rich.table import Table

from callbacks.notice import notice
from callbacks.progress import planned_batches
from lightning_modules.sharded_strategy import ShardedStrategy

_TINY = Path("weights") / "tiny"
_GENERATED = "avshapes"


class StartBanner(Callback):
    """Prints the size of the model, the batch table and the log folder when a training begins."""

    def __init__(self, *, enabled: bool = True) -> None:
        """Keep the setting.

        Args:
            enabled: False prints nothing.
        """
        self.enabled = enabled

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print once, on the first process."""
        # Asking for the log folder is a broadcast: every process has to.
        folder = trainer.log_dir if trainer.loggers else None
        warn_about_tiny_weights(trainer, pl_module)
        if not self.enabled or not trainer.is_global_zero:
            return
        console = rich.get_console()
        console.print(weights_table(pl_module))
        batches = batch_rows(trainer, pl_module)
        if batches:
            table = Table("batch", "", title="batch arithmetic", show_header=False)
            for name, value in batches:
                table.add_row(name, value)
            console.print(table)
        console.print(f"strategy: {describe_strategy(trainer)}", soft_wrap=True, highlight=False)
        reference = kl_reference(pl_module)
        if reference:
            console.print(reference, soft_wrap=True, highlight=False)
        device = f"{trainer.world_size} x {trainer.strategy.root_device.type}, precision {trainer.precision}"
        console.print(f"running on {device}; logs and checkpoints in {folder or 'nowhere (no logger)'}", soft_wrap=True)


def describe_strategy(trainer: L.Trainer) -> str:
    """How weights and work are spread over the devices, in one line."""
    strategy = trainer.strategy
    if isinstance(strategy, ShardedStrategy):
        return strategy.describe()
    name = type(strategy).__name__
    return name if trainer.world_size == 1 else f"{name}, a whole base on each of {trainer.world_size} devices"


def weights_table(module: L.LightningModule) -> Table:
    """Trained and frozen parameters of each part of a module."""
    table = Table("part", "trained", "frozen", title=type(module).__name__)
    total = [0, 0]
    for name, part in module.named_children():
        trained = sum(parameter.numel() for parameter in part.parameters() if parameter.requires_grad)
        frozen = sum(parameter.numel() for parameter in part.parameters() if not parameter.requires_grad)
        total = [total[0] + trained, total[1] + frozen]
        if trained or frozen:
            table.add_row(name, f"{trained:,}", f"{frozen:,}")
    table.add_section()
    table.add_row("all", f"{total[0]:,}", f"{total[1]:,}")
    return table


def batch_rows(trainer: L.Trainer, module: L.LightningModule) -> list[tuple[str, str]]:
    """The batch words with their products; empty for a module that samples no groups.

    Args:
        trainer: After its data module was set up.
        module: With `grpo` settings, or without.
    """
    settings, data = getattr(module, "grpo", None), getattr(trainer, "datamodule", None)
    prompts = getattr(data, "prompts_per_step", None)
    if settings is None or data is None or prompts is None:
        return []
    everywhere = prompts * trainer.world_size
    completions = everywhere * settings.group_size
    steps = data.steps_per_epoch(updates_per_rollout=settings.updates_per_rollout)
    planned = planned_batches(trainer, module)
    return [
        ("prompts_per_step", f"{prompts} on each of {trainer.world_size} processes = {everywhere}"),
        ("group_size", f"{settings.group_size} completions per prompt"),
        ("completions per rollout step", f"{everywhere} x {settings.group_size} = {completions}"),
        ("micro_batch_tokens", f"{settings.micro_batch_tokens} tokens per forward pass (memory only)"),
        ("updates_per_rollout", f"{settings.updates_per_rollout} optimizer steps per rollout step"),
        ("optimizer steps per epoch", f"{steps}"),
        (
            "planned steps",
            "until stopped"
            if planned is None
            else f"{planned * settings.updates_per_rollout} optimizer steps = {planned} rollout steps, "
            f"{planned * completions} completions",
        ),
    ]


def kl_reference(module: L.LightningModule) -> str:
    """What the KL penalty holds the policy near to, where that is not where it starts; else nothing."""
    adapter = getattr(getattr(module, "reasoner", None), "adapter", None)
    beta = getattr(getattr(module, "grpo", None), "beta", 0.0)
    if adapter is None or not beta:
        return ""
    return (
        f"The run starts from the adapter in {adapter}, and the KL penalty (--model.grpo.beta {beta:g}) pulls towards "
        "the base model without it: kl does not begin at 0."
    )


def warn_about_tiny_weights(trainer: L.Trainer, module: L.LightningModule) -> None:
    """Say once that the embedded weights know the generated benchmark only, when they meet other data."""
    data = getattr(trainer, "datamodule", None)
    # A mixture's sources may have folders of their own.
    roots = [getattr(part, "root", _GENERATED) for part in (getattr(data, "parts", None) or {"": data}).values()]
    real = [str(root) for root in roots if root != _GENERATED]
    parts = {
        name: getattr(getattr(module, name, None), "path", None) for name in ("reasoner", "grounder", "propagator")
    }
    tiny = [
        f"--model.{name}.path {path}" for name, path in parts.items() if path and _TINY.parts == Path(path).parts[:2]
    ]
    if tiny and real:
        notice(
            trainer,
            f"The data are {', '.join(real)}, but the weights are the embedded tiny ones, which know the generated "
            f"benchmark only ({', '.join(tiny)}). Everything runs, but scores mean nothing; configs/scale has the "
            "released ones.",
        )
