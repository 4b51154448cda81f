"""FSDP2 for a frozen base with a trained adapter, as a Lightning strategy.

The base is spread over devices when the module reads it (`models.sharding`); this class says over which devices, and
saves and restores what is trained. Lightning's own FSDP strategy is not used: it refuses to run without a GPU, cannot
hold a bfloat16 base and a float32 adapter in one unit, and does not clip gradients.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal

from lightning.pytorch.strategies import ModelParallelStrategy
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from datamodules.errors import ConfigError
from models.sharding import Gather, Sharding

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
        self.sharding: Sharding | None = None

    def setup_environment(self) -> None:
        """Let processes find each other, and arrange them as copies by shards.

        Raises:
            ConfigError: The devices cannot be divided so.
        """
        # Lightning's "auto" is the number of nodes.
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()
        shards = self.world_size if self.shard_size == "all" else self.shard_size
        if shards < 1 or self.world_size % shards:
            raise ConfigError(
                f"sharding.shard_size is {self.shard_size}, which does not divide the {self.world_size} devices of the "
                "run. Set --sharding.shard_size all, or to a number that does."
            )
        mesh = init_device_mesh(
            self.root_device.type, (self.world_size // shards, shards), mesh_dim_names=("copies", "shards")
        )
        self._device_mesh = mesh
        if self.lightning_module is not None:
            self.lightning_module._device_mesh = mesh
        used = mesh["shards"] if shards == self.world_size else mesh
        self.sharding = Sharding(used, self.root_device, offload=self.offload, gather=self.gather)

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

    def _get_process_group_backend(self) -> str:
        # Norms of offloaded gradients are added up on the CPU.
        backend = super()._get_process_group_backend()
        is_bare = self.offload and self.root_device.type != "cpu" and ":" not in backend
        return f"cpu:gloo,{self.root_device.type}:{backend}" if is_bare else backend
