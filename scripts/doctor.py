"""Tell whether a run will fit, without its weights, its data or its devices.

    python scripts/doctor.py --config configs/scale/refavs_7b.yaml --card_gb 80
    python scripts/doctor.py --card_gb 24 --config configs/scale/refavs_7b.yaml --trainer.strategy fsdp

Takes the flags of `train.py fit`, builds the configured model on the meta device, and prints its parameters and what
each device has to hold in the three parts of a step. Exit code 0 when the run fits, 1 when it does not (the last line
names flags that would help), 2 for a command that cannot be read.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

import lightning as L
import rich
import torch
from jsonargparse import Namespace
from lightning.pytorch.callbacks import Callback

from datamodules.errors import ConfigError
from lightning_modules.cli import OmniCLI
from lightning_modules.cli_strategy import chosen_strategy
from lightning_modules.grpo_module import GRPOModule
from lightning_modules.planning import judge, memory_table, workload
from lightning_modules.quiet import quiet
from train import CALLBACKS


class PlanCLI(OmniCLI):
    """Reads the command line as training does, and builds everything but the trainer."""

    def _instantiate_trainer(self, config: dict[str, object], callbacks: list[Callback]) -> L.Trainer:
        """None is needed, and the devices need not be here."""
        return L.Trainer(
            accelerator="cpu",
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )

    def _run_subcommand(self, subcommand: str) -> None:
        """Nothing is run."""


def devices_of(config: Namespace) -> int:
    """Devices of all nodes that a trainer's settings ask for; "auto" counts those of this machine."""
    asked = config.devices
    if isinstance(asked, list):
        here = len(asked)
    elif str(asked).lstrip("-").isdigit() and int(asked) > 0:
        here = int(asked)
    else:
        here = max(1, torch.cuda.device_count())
    return here * int(config.num_nodes)


def main(arguments: Sequence[str]) -> int:
    """Run the command.

    Args:
        arguments: The command line without the program's name.
    """
    own = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    own.add_argument("--card_gb", type=float, help="memory of a device in 1e9 bytes; that of this machine if left out")
    options, rest = own.parse_known_args(arguments)
    card_gb = options.card_gb
    if card_gb is None and torch.cuda.is_available():
        card_gb = torch.cuda.get_device_properties(0).total_memory / 1e9
    if card_gb is None:
        own.error("there is no GPU here; say how much memory a device has, as in --card_gb 80")
    quiet()
    try:
        cli = PlanCLI(["fit", *rest], callbacks=CALLBACKS)
        if not isinstance(cli.model, GRPOModule):
            raise ConfigError(
                f"only trainings with GRPO are planned, found {type(cli.model).__name__}. Supervised training, test "
                "and predict are not."
            )
        trainer = cli.config_init["fit"].trainer
        sizes, load = workload(
            cli.model,
            cli.datamodule,
            devices=devices_of(trainer),
            strategy=chosen_strategy(trainer.strategy, cli.config_init["fit"].sharding),
            precision=str(trainer.precision or "32-true"),
        )
    except ConfigError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    if trainer.devices == "auto" and not torch.cuda.is_available():
        print("trainer.devices is auto and there is no GPU here: planned for 1 per node, as with --trainer.devices 1")
    verdict = judge(sizes, load, card_gb)
    rich.print(memory_table(verdict))
    print(verdict.message or f"fits: {verdict.plan.peak:.1f} of {card_gb:.1f} GB")
    return 0 if verdict.fits else 1


if __name__ == "__main__":
    # A run's launcher must not be taken for this program's.
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        os.environ.pop(name, None)
    sys.exit(main(sys.argv[1:]))
