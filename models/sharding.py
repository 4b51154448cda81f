"""Spread the frozen base over devices, and bring it together again where it is needed whole.

Every decoder layer, vision block and sound layer is a group of its own that comes and goes as it runs; what is left
(embeddings, output head, norms, the ends of the towers) is one more group. Two blocks decide what is whole when:

`gathered` holds everything for a rollout phase, so that processes may sample different numbers of tokens, look at
different numbers of images and still never wait for each other in a layer. Where the whole base does not fit on a
device, the decoder layers come and go one by one in there as well (``gather="layer"``): then all processes walk through
the layers in step, and one that has nothing left to do walks along until all have finished.

`gathered_ends` holds the last group only, for an update, in which all processes make the same passes.

Reference:
    PyTorch FSDP2, ``torch.distributed.fsdp.fully_shard``. The base is never changed by it: nothing is cast, and what a
    process computes with gathered weights is what it would compute without sharding.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    OffloadPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor, Shard

from datamodules.errors import ConfigError

DECODER_BLOCK = "Qwen2_5OmniDecoderLayer"
BLOCKS = (DECODER_BLOCK, "Qwen2_5OmniVisionBlock", "Qwen2_5OmniAudioEncoderLayer")
"""Classes whose every module is gathered on its own; found by name, because sharding renames nothing else."""

FIRST_OF_MIXED_TYPES = (2, 15)
"""Release of PyTorch that gathers a bfloat16 base and a float32 adapter together."""

Gather = Literal["model", "layer"]


@dataclass(frozen=True)
class Sharding:
    """How a base is spread.

    Attributes:
        mesh: Devices: one axis that a copy is cut along, or two, copies by shards.
        device: Where this process computes.
        offload: Keep the shards in the host's memory and bring them to the device when they are gathered.
        gather: What a rollout holds: the whole "model", or one "layer" of the decoder at a time.
    """

    mesh: DeviceMesh
    device: torch.device
    offload: bool = False
    gather: Gather = "model"

    @property
    def storage(self) -> torch.device:
        """Where shards are kept."""
        return torch.device("cpu") if self.offload else self.device


class ShardedModel:
    """A thinker that is spread over devices.

    Args:
        thinker: The Hugging Face model, adapter layers inside, on the meta device or on the CPU.
        sharding: How to spread it.

    Raises:
        ConfigError: The model has none of the blocks that are gathered one by one, or this release of PyTorch cannot
            gather its types together.
    """

    def __init__(self, thinker: nn.Module, sharding: Sharding) -> None:
        self.sharding = sharding
        blocks = [module for module in thinker.modules() if type(module).__name__ in BLOCKS]
        decoder = [block for block in blocks if type(block).__name__ == DECODER_BLOCK]
        if not decoder:
            raise ConfigError(
                f"model.reasoner: expected a model with {DECODER_BLOCK}, found {type(thinker).__name__} without any; "
                "it cannot be sharded. Set --trainer.strategy ddp."
            )
        _check_types(thinker)
        has_copies = sharding.device.type != "cpu"  # only then is there anything to be quick for
        policy = CPUOffloadPolicy(pin_memory=has_copies) if sharding.offload else OffloadPolicy()
        for module in (*blocks, thinker):
            fully_shard(module, mesh=sharding.mesh, reshard_after_forward=True, offload_policy=policy)
        self._root, self._decoder = _fsdp(thinker), [_fsdp(layer) for layer in decoder]
        self._groups = [self._root, *(_fsdp(block) for block in blocks)]
        # The backward pass of a layer would otherwise end with the ends being put away, and the next one needs them.
        self._root.set_reshard_after_backward(False, recurse=False)
        self._following = dict(zip(self._decoder, self._decoder[1:], strict=False))
        for layer, following in self._following.items():
            layer.set_modules_to_forward_prefetch([following])
        self._is_settled = False
        self._entered: nn.Module | None = None

    @contextlib.contextmanager
    def gathered(self) -> Iterator[None]:
        """Everything is whole inside the block, or everything but the decoder; no gradients.

        All processes enter and leave together, whatever they do in between.
        """
        held = [group for group in self._groups if not self.is_visited or group not in set(self._decoder)]
        # Weights that are gathered as inference tensors could never be trained on again.
        together = self._in_step() if self.is_visited else contextlib.nullcontext()
        with torch.inference_mode(False), torch.no_grad(), self._held(held), together:
            yield

    @contextlib.contextmanager
    def gathered_ends(self) -> Iterator[None]:
        """What lies around the layers is whole inside the block; layers come and go as they run."""
        with self._held([self._root]):
            yield

    @property
    def is_visited(self) -> bool:
        """Decoder layers come and go in rollouts as well."""
        return self.sharding.gather == "layer"

    def enter(self, layer: nn.Module) -> None:
        """Make a decoder layer whole until `leave`, for a rollout that calls its parts and not the layer itself.

        Layers are entered in order, from the first to the last. Entering one again changes nothing.
        """
        if layer is self._entered:
            return
        group = _fsdp(layer)
        if group is self._decoder[0]:
            self._anybody(True)
        group.unshard()
        if group in self._following:
            # What devices exchange travels while this layer computes. What comes from the host's memory does not: it
            # is copied before this layer runs or, on a single device, when the next one is entered. The order stays
            # that of the layers, as on a process that walks along.
            self._following[group].unshard(async_op=True)
        self._entered = layer

    def leave(self, layer: nn.Module) -> None:
        """Put a decoder layer away again."""
        _fsdp(layer).reshard()
        self._entered = None

    @contextlib.contextmanager
    def _held(self, groups: list[FSDPModule]) -> Iterator[None]:
        self._settle()
        for group in groups:
            group.set_reshard_after_forward(False, recurse=False)
            group.unshard()
        try:
            yield
        finally:
            for group in groups:
                group.set_reshard_after_forward(True, recurse=False)
                group.reshard()

    def _settle(self) -> None:
        """Let FSDP find out which module is the outermost, by calling that one first; we call its parts only."""
        if self._is_settled:
            return
        root: Any = self._root
        root.settle = _do_nothing
        register_fsdp_forward_method(root, "settle")
        with torch.inference_mode(False), torch.no_grad():
            root.settle()
        self._is_settled = True

    @contextlib.contextmanager
    def _in_step(self) -> Iterator[None]:
        """Processes pass through the decoder together; the first to finish goes along with the others."""
        module: Any = self._decoder[0]
        hook = module.register_forward_pre_hook(lambda *_: self._anybody(True), prepend=True)
        try:
            yield
        finally:
            hook.remove()
        while self._anybody(False):
            for layer in self._decoder:
                layer.unshard()
                layer.reshard()

    def _anybody(self, running: bool) -> bool | None:
        """Whether any process starts another pass through the decoder."""
        flag = torch.tensor([float(running)], device=self.sharding.device)
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return None if running else bool(flag)


def gathers_mixed_types() -> bool:
    """Whether the installed PyTorch gathers a bfloat16 base and a float32 adapter together."""
    return tuple(int(part) for part in torch.__version__.split(".")[:2]) >= FIRST_OF_MIXED_TYPES


def _check_types(thinker: nn.Module) -> None:
    """Refuse a base and an adapter of different types where FSDP2 wants one type per group."""
    kinds = sorted({str(parameter.dtype) for parameter in thinker.parameters()})
    if len(kinds) > 1 and not gathers_mixed_types():
        raise ConfigError(
            f"trainer.strategy is fsdp with weights of {' and '.join(kinds)}, which PyTorch gathers together since "
            f"{'.'.join(map(str, FIRST_OF_MIXED_TYPES))}; this is {torch.__version__}. Install that, or set "
            "--trainer.strategy ddp or --model.reasoner.dtype float32."
        )


def _fsdp(module: nn.Module) -> FSDPModule:
    if not isinstance(module, FSDPModule):
        raise TypeError(f"expected a sharded module, found {type(module).__name__}")
    return module


def _do_nothing() -> None:
    return None


def fill(parameter: Tensor, source: Any) -> None:  # noqa: ANN401 (a tensor, or a slice of a file that is indexed like one)
    """Copy values into a weight that may be spread over devices; each process reads the rows that it keeps.

    Args:
        parameter: Whole, or a DTensor that is cut along its first axis.
        source: All of the values, in memory or as safetensors' `get_slice` gives them.

    Raises:
        ValueError: The shapes differ.
    """
    shape = tuple(source.shape if isinstance(source, Tensor) else source.get_shape())
    if shape != tuple(parameter.shape):
        raise ValueError(f"expected {tuple(parameter.shape)}, found {shape}")
    with torch.no_grad():
        if isinstance(parameter, DTensor):
            rows = kept_rows(parameter)
            parameter.to_local().copy_(source[rows.start : rows.stop])
        else:
            parameter.copy_(source[:] if shape else source)


def kept_rows(parameter: DTensor) -> slice:
    """Rows of a weight that this process keeps; empty where there are fewer rows than devices."""
    start, stop = 0, parameter.shape[0]
    for axis, placement in enumerate(parameter.placements):
        if isinstance(placement, Shard):
            share = -(-(stop - start) // parameter.device_mesh.size(axis))
            start = min(stop, start + share * parameter.device_mesh.get_local_rank(axis))
            stop = min(stop, start + share)
    return slice(start, stop)
