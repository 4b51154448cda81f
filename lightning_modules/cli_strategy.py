"""How a run is spread over devices, as the command line says it.

`--trainer.strategy fsdp` is what people type, so it works: our strategy takes the place of Lightning's own, which runs
on GPUs only and cannot hold a bfloat16 base and a float32 adapter together. Settings of it are under `--sharding`.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from lightning.fabric.plugins.environments.lsf import LSFEnvironment
from lightning.fabric.plugins.environments.mpi import MPIEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.strategies import StrategyRegistry

from datamodules.errors import ConfigError
from lightning_modules.sharded_strategy import ShardedStrategy
from models.sharding import Gather

REGISTERED_NAME = "sharded"
_STARTERS = (TorchElasticEnvironment, SLURMEnvironment, LSFEnvironment, MPIEnvironment)
"""What starts a process on every node and says how they find each other."""
_STANDS_FOR_OURS = (REGISTERED_NAME, "fsdp", "fsdp_cpu_offload")


@dataclass(frozen=True)
class ShardingSettings:
    """How `--trainer.strategy fsdp` spreads the base.

    Attributes:
        shard_size: Devices that share one copy of the base. "all" has one copy in the whole job; with several nodes,
            the number of devices of a node shards inside nodes and has a copy in each.
        offload: Keep the shards in the host's memory, and bring them to the device as they are needed.
        gather: What a rollout holds on each device: the whole "model", or one "layer" of the decoder at a time, which
            needs less memory and much more time.
        consolidate: Write a checkpoint as one file instead of a folder in which every process writes what it keeps.
    """

    shard_size: int | Literal["all"] = "all"
    offload: bool = False
    gather: Gather = "model"
    consolidate: bool = False


def chosen_strategy(name: Any, settings: ShardingSettings) -> Any:  # noqa: ANN401 (a name, or a strategy)
    """The strategy to give to the trainer.

    Args:
        name: `trainer.strategy` as it was given.
        settings: `sharding` as it was given.

    Returns:
        A `ShardedStrategy` where one was asked for by any of its names, else what was given.

    Raises:
        ConfigError: There are settings for sharding, and the strategy does not shard.
    """
    if isinstance(name, str) and name in _STANDS_FOR_OURS:
        changed = {"offload": True} if name == "fsdp_cpu_offload" else {}
        return ShardedStrategy(**asdict(settings) | changed)
    default = asdict(ShardingSettings())
    changed_keys = [key for key, value in asdict(settings).items() if value != default[key]]
    if changed_keys:
        shown = name if isinstance(name, str) else type(name).__name__
        found = " and ".join(f"sharding.{key} is {_typed(asdict(settings)[key])}" for key in changed_keys)
        # Not "leave it out": a preset, or the configuration of a run that is resumed, may have set it.
        back = " ".join(f"--sharding.{key} {_typed(default[key])}" for key in changed_keys)
        raise ConfigError(
            f"{found}, but trainer.strategy is {shown}, which does not shard. Set --trainer.strategy fsdp, or {back}."
        )
    return name


def _typed(value: object) -> str:
    """A value as it is typed on a command line."""
    return str(value).lower()


def environment_plugins() -> list[SLURMEnvironment]:
    """Under SLURM: leave requeueing to the job script.

    Lightning would save inside the signal's handler, that is in the middle of a step, and possibly of a collective
    operation. A SIGTERM is acted on between two steps instead. Processes that torchrun has started within a SLURM job
    are numbered by torchrun, and never requeue.
    """
    is_slurms = SLURMEnvironment.detect() and not TorchElasticEnvironment.detect()
    return [SLURMEnvironment(auto_requeue=False)] if is_slurms else []


def refuse_missing(accelerator: object, num_nodes: int) -> None:
    """Refuse devices and nodes that are not there, with the flags that choose others.

    Args:
        accelerator: `trainer.accelerator`.
        num_nodes: `trainer.num_nodes`.

    Raises:
        ConfigError: GPUs are asked for and there are none; or there are to be several nodes and nothing says how they
            find each other, so that the run would wait for them without a word.
    """
    if accelerator in ("gpu", "cuda") and not torch.accelerator.is_available():
        raise ConfigError(
            f"trainer.accelerator is {accelerator}, but PyTorch finds no GPU here. Set --trainer.accelerator cpu, or "
            "train the tiny models, which need none: --config configs/refavs.yaml. Whether a run would fit on GPUs is "
            "told by python scripts/doctor.py."
        )
    is_started = any(environment.detect() for environment in _STARTERS)
    if num_nodes > 1 and not is_started and "MASTER_ADDR" not in os.environ:
        raise ConfigError(
            f"trainer.num_nodes is {num_nodes}, but nothing has told this process where the others are. Start it on "
            f"every node with torchrun --nnodes {num_nodes} (see docs/scale.md), or with sbatch scripts/slurm.sh, or "
            "set MASTER_ADDR and NODE_RANK; on one machine, set --trainer.num_nodes 1."
        )


StrategyRegistry.register(REGISTERED_NAME, ShardedStrategy, "FSDP2: the base spread over all devices")
