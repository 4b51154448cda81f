"""FSDP2 for a frozen base with a trained adapter, as a Lightning strategy.

The base is spread over devices when the module reads it (`models.sharding`); this class says over which devices, and
saves and restores what is trained. Lightning's own FSDP strategy is not used: it refuses to run without a GPU, cannot
hold a bfloat16 base and a float32 adapter in one unit, and does not clip gradients.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.plugins import CheckpointIO
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from datamodules.errors import ConfigError
from lightning_modules.checkpoint import AtomicCheckpointIO
from lightning_modules.sharded_checkpoint import write
from lightning_modules.trainable_state import whole
from models.sharding import Gather, Sharding, fill

_TIMEOUT = timedelta(minutes=30)


class ShardedStrategy(ModelParallelStrategy):
    """Spreads the base over devices; what is trained is spread with it.

    Attributes:
        sharding: How the module is to spread its base; known once processes have found each other.
    """

    # No **kwargs: the command line would fill them from the parent's signature.
    def __init__(
        self,
        shard_size: int | Literal["all"] = "all",
        *,
        offload: bool = False,
        gather: Gather = "model",
        consolidate: bool = False,
        process_group_backend: str | None = None,
        timeout: timedelta | None = _TIMEOUT,
    ) -> None:
        """Keep the settings.

        Args:
            shard_size: Devices that share one copy of the base; with several nodes, those of one node keep gathering
                inside it. "all" has one copy in the whole job, 1 a copy per device.
            offload: Keep the shards in the host's memory.
            gather: What a rollout holds on each device: the whole "model", or one "layer" of the decoder at a time,
                which needs less memory and much more time.
            consolidate: Gather what is trained and write a checkpoint as one file; otherwise it is a folder in which
                every process writes what it keeps. Either is read by any strategy on any number of devices.
            process_group_backend: Of torch.distributed; None takes the device's own.
            timeout: Of collective operations.
        """
        super().__init__(
            data_parallel_size="auto",
            tensor_parallel_size=1,
            save_distributed_checkpoint=False,
            process_group_backend=process_group_backend,
            timeout=timeout,
        )
        self.shard_size = shard_size
        self.offload = offload
        self.gather: Gather = gather
        self.consolidate = consolidate
        self.sharding: Sharding | None = None

    def setup_environment(self) -> None:
        """Let processes find each other, and arrange them as copies by shards.

        Raises:
            ConfigError: The devices cannot be divided so.
        """
        # Lightning's "auto" is the number of nodes.
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()
        shards = self.shards_of(self.world_size)
        mesh = init_device_mesh(
            self.root_device.type, (self.world_size // shards, shards), mesh_dim_names=("copies", "shards")
        )
        self._device_mesh = mesh
        if self.lightning_module is not None:
            self.lightning_module._device_mesh = mesh
        used = mesh["shards"] if shards == self.world_size else mesh
        self.sharding = Sharding(used, self.root_device, offload=self.offload, gather=self.gather)

    def shards_of(self, devices: int) -> int:
        """Devices that share one copy of the base.

        Args:
            devices: Of all nodes together.

        Raises:
            ConfigError: They cannot be divided so.
        """
        shards = devices if self.shard_size == "all" else self.shard_size
        if shards < 1 or devices % shards:
            raise ConfigError(
                f"sharding.shard_size is {self.shard_size}, which does not divide the {devices} devices of the run. Set"
                " --sharding.shard_size all, or to a number that does."
            )
        return shards

    def describe(self) -> str:
        """What is spread how, in one line."""
        copies, shards = self.device_mesh["copies"].size(), self.device_mesh["shards"].size()
        parts = [
            "sharded with FSDP2 (which is what --trainer.strategy fsdp stands for)",
            f"the base over {shards} devices, {copies} cop{'y' if copies == 1 else 'ies'} of it",
            f"gathered {'whole' if self.gather == 'model' else 'layer by layer'} in rollouts",
            *(["kept in the host's memory"] if self.offload else []),
        ]
        return ", ".join(parts)

    @property
    def distributed_sampler_kwargs(self) -> dict[str, Any]:
        """Every process has data of its own."""
        return {"num_replicas": self.world_size, "rank": self.global_rank}

    def model_to_device(self) -> None:
        """Move what is not spread: System 2, and tables. Shards stay where they are kept."""
        if self.model is None:
            return
        for module in self.model.modules():
            for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
                if not isinstance(tensor, DTensor):
                    tensor.data = tensor.data.to(self.root_device)

    def setup(self, trainer: L.Trainer) -> None:
        """Make optimizers, and put everything where it belongs.

        Raises:
            ConfigError: The module has not spread its model, so that its processes would train apart.
        """
        if not any(isinstance(part, FSDPModule) for part in self._module.modules()):
            raise ConfigError(
                f"trainer.strategy shards the model, which {type(self._module).__name__} does not know how to. Set "
                "--trainer.strategy ddp."
            )
        super().setup(trainer)

    @property
    def _module(self) -> L.LightningModule:
        if self.lightning_module is None:
            raise RuntimeError("the strategy has no module yet; it is connected when a command begins.")
        return self.lightning_module

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Restored by `load_optimizer_state_dict`, as in other strategies."""
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """What is trained: spread tensors, or, consolidated, whole ones on the first process and nothing elsewhere."""
        trained = {name: p.detach() for name, p in self._module.named_parameters() if p.requires_grad}
        return self._collected(trained) if self.consolidate else trained

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """The state of an optimizer, its tensors as in `lightning_module_state_dict`."""
        state = (optimizer._optimizer if isinstance(optimizer, LightningOptimizer) else optimizer).state_dict()
        if not self.consolidate:
            return state
        return {"state": {key: self._collected(own) for key, own in state["state"].items()}, **_without_state(state)}

    def _collected(self, values: dict[str, Any]) -> dict[str, Any]:
        kept = {}
        for name, value in values.items():
            one = whole(value).cpu() if isinstance(value, DTensor) else value
            if self.is_global_zero:
                kept[name] = one
        return kept

    @property
    def checkpoint_io(self) -> CheckpointIO:
        """What reads and writes files; our own, which also reads folders, unless another one was configured."""
        if self._checkpoint_io is None:
            self._checkpoint_io = AtomicCheckpointIO()
        return self._checkpoint_io

    @checkpoint_io.setter
    def checkpoint_io(self, io: CheckpointIO | None) -> None:
        self._checkpoint_io = io

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: str | os.PathLike[str], storage_options: object | None = None
    ) -> None:
        """Write a checkpoint: a folder, or one file when consolidated."""
        path = Path(self.broadcast(filepath))
        if self.consolidate:
            if self.is_global_zero:
                self.checkpoint_io.save_checkpoint(checkpoint, path, storage_options=storage_options)
            return
        copy = self.device_mesh.get_local_rank("copies")
        write(checkpoint, path, rank=self.global_rank, copy=copy, barrier=self.barrier)

    def load_checkpoint(
        self, checkpoint_path: str | os.PathLike[str], weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint of any strategy; every process reads all of it, which is small, and keeps its share."""
        path = Path(self.broadcast(checkpoint_path))
        return self.checkpoint_io.load_checkpoint(path, weights_only=weights_only)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Take this process's share of the trained weights."""
        for name, parameter in self._module.named_parameters():
            if parameter.requires_grad:
                fill(parameter, checkpoint["state_dict"][name])

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Take this process's share of the optimizers' states."""
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            own = {key: _shares(values, parameters[int(key)]) for key, values in state["state"].items()}
            optimizer.load_state_dict({"state": own, **_without_state(state)})

    def _get_process_group_backend(self) -> str:
        # Norms of offloaded gradients are added up on the CPU.
        backend = super()._get_process_group_backend()
        is_bare = self.offload and self.root_device.type != "cpu" and ":" not in backend
        return f"cpu:gloo,{self.root_device.type}:{backend}" if is_bare else backend


def _without_state(state: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in state.items() if key != "state"}


def _shares(values: Mapping[str, Any], parameter: Tensor) -> dict[str, Any]:
    """The state of one weight, spread like the weight where it has the same shape."""
    shares = {}
    for name, value in values.items():
        if isinstance(value, Tensor) and value.ndim and value.shape == parameter.shape:
            shares[name] = torch.zeros_like(parameter, dtype=value.dtype)
            fill(shares[name], value)
        else:
            shares[name] = value
    return shares
