import os
import re

import lightning as L
import pytest
from jsonargparse import ArgumentParser
from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch.strategies import DDPStrategy, StrategyRegistry
from lightning.pytorch.utilities import rank_zero_only

from datamodules.errors import ConfigError
from lightning_modules.cli_strategy import (
    ShardingSettings,
    chosen_strategy,
    environment_plugins,
    refuse_missing,
)
from lightning_modules.sharded_strategy import ShardedStrategy


@pytest.mark.parametrize("name", ["fsdp", "sharded", "fsdp_cpu_offload"])
def test_every_name_of_sharding_is_our_strategy_with_its_settings(name):
    found = chosen_strategy(name, ShardingSettings(shard_size=8, gather="layer", consolidate=True))
    assert isinstance(found, ShardedStrategy)
    assert (found.shard_size, found.gather, found.consolidate) == (8, "layer", True)
    assert found.offload == (name == "fsdp_cpu_offload")


@pytest.mark.parametrize("name", ["ddp", "auto", DDPStrategy()], ids=["ddp", "auto", "object"])
def test_other_strategies_pass_and_refuse_what_they_do_not_read(name):
    assert chosen_strategy(name, ShardingSettings()) is name
    shown = name if isinstance(name, str) else "DDPStrategy"
    with pytest.raises(ConfigError) as refused:
        chosen_strategy(name, ShardingSettings(offload=True))
    assert str(refused.value) == (
        f"sharding.offload is true, but trainer.strategy is {shown}, which does not shard. Set --trainer.strategy fsdp,"
        " or --sharding.offload false."
    )


def test_flags_for_another_strategy_undo_all_that_a_preset_or_a_resumed_run_has_set():
    """They cannot be left out, because they are in a file."""
    with pytest.raises(ConfigError) as refused:
        chosen_strategy("ddp", ShardingSettings(shard_size=8, gather="layer", consolidate=True))
    flags = re.findall(r"--sharding\.(\w+) (\w+)", str(refused.value))
    assert flags == [("shard_size", "all"), ("gather", "model"), ("consolidate", "false")]
    parser = ArgumentParser()
    parser.add_argument("--sharding", type=ShardingSettings)
    saved = ["--sharding.shard_size=8", "--sharding.gather=layer", "--sharding.consolidate=true"]
    given = parser.parse_args([*saved, *(f"--sharding.{key}={value}" for key, value in flags)])
    assert chosen_strategy("ddp", ShardingSettings(**given.sharding.as_dict())) == "ddp"


def test_the_strategy_is_registered_for_programs():
    assert isinstance(StrategyRegistry.get("sharded"), ShardedStrategy)


@pytest.fixture
def alone(monkeypatch) -> pytest.MonkeyPatch:
    """A process that nothing but a shell has started."""
    for key in [key for key in os.environ if key.startswith(("SLURM_", "TORCHELASTIC_", "MASTER_"))]:
        monkeypatch.delenv(key)
    # A trainer writes its number there, and nobody but process 0 logs anything; the tests that follow do.
    monkeypatch.setattr(rank_zero_only, "rank", 0)
    return monkeypatch


def enter_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"NTASKS": "2", "NTASKS_PER_NODE": "2", "JOB_NAME": "train", "PROCID": "0"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)


def enter_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {"RANK": "1", "LOCAL_RANK": "1", "GROUP_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    for name, value in (fields | {"TORCHELASTIC_RUN_ID": "test", "MASTER_ADDR": "localhost"}).items():
        monkeypatch.setenv(name, value)


def test_under_slurm_the_job_script_requeues(alone):
    assert environment_plugins() == []
    enter_slurm(alone)
    (found,) = environment_plugins()
    assert isinstance(found, SLURMEnvironment)
    assert not found.auto_requeue


def test_torchrun_within_a_slurm_job_numbers_the_processes(alone):
    """As SLURM's only task on this node it would be process 0, beside torchrun's own process 0."""
    enter_slurm(alone)
    enter_torchrun(alone)
    assert environment_plugins() == []
    trainer = L.Trainer(accelerator="cpu", devices=2, plugins=environment_plugins(), logger=False)
    assert trainer.global_rank == 1


def test_several_nodes_have_to_know_of_each_other(alone):
    refuse_missing("auto", 1)
    with pytest.raises(ConfigError, match=r"trainer\.num_nodes is 2, but nothing .* torchrun --nnodes 2 .* sbatch"):
        refuse_missing("auto", 2)


@pytest.mark.parametrize("enter", [enter_slurm, enter_torchrun, lambda env: env.setenv("MASTER_ADDR", "node0")])
def test_several_nodes_find_each_other(alone, enter):
    enter(alone)
    refuse_missing("auto", 2)


def test_a_gpu_that_is_not_there_is_refused_with_what_works_without(alone):
    alone.setattr("torch.accelerator.is_available", lambda: False)
    refuse_missing("cpu", 1)
    with pytest.raises(ConfigError, match=r"trainer\.accelerator is gpu, .* Set --trainer\.accelerator cpu, or"):
        refuse_missing("gpu", 1)
    alone.setattr("torch.accelerator.is_available", lambda: True)
    refuse_missing("gpu", 1)
