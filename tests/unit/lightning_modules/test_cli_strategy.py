import os

import pytest
from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch.strategies import DDPStrategy, StrategyRegistry

from datamodules.errors import ConfigError
from lightning_modules.cli_strategy import ShardingSettings, chosen_strategy, environment_plugins
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
    with pytest.raises(ConfigError, match=r"sharding\.offload is set, but trainer\.strategy is .*DDP|ddp|auto"):
        chosen_strategy(name, ShardingSettings(offload=True))


def test_the_strategy_is_registered_for_programs():
    assert isinstance(StrategyRegistry.get("sharded"), ShardedStrategy)


def test_under_slurm_the_job_script_requeues(monkeypatch):
    for key in [key for key in os.environ if key.startswith("SLURM_")]:
        monkeypatch.delenv(key)
    assert environment_plugins() == []
    monkeypatch.setenv("SLURM_NTASKS", "2")
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "2")
    monkeypatch.setenv("SLURM_JOB_NAME", "train")
    (found,) = environment_plugins()
    assert isinstance(found, SLURMEnvironment)
    assert not found.auto_requeue
