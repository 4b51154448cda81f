"""`--trainer.strategy fsdp` on the command line: our strategy, the same run, a checkpoint that any strategy reads."""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from random_weights import fast_flags
from safetensors.torch import load_file

Command = Callable[[Sequence[str]], int]
LOW = "--rewards.low=cli_doubles.LowTokens"


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    """Leave no process group behind, nor where it met."""
    before = dict(os.environ)
    yield
    if dist.is_initialized():
        dist.destroy_process_group()
    for name in set(os.environ) - set(before):
        with contextlib.suppress(KeyError):
            del os.environ[name]


def adapter(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "adapter" / "adapter_model.safetensors")


def test_one_flag_shards_a_run_and_changes_nothing_else(
    command: Command, weights: Path, benchmark_cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = fast_flags(weights, benchmark_cache, tmp_path / "whole")
    spread = fast_flags(weights, benchmark_cache, tmp_path / "spread")
    # A flat learning rate, so that a run that is prolonged goes on as one that was longer from the start.
    settings = [LOW, "--model.optimizer.lr=3e-4", "--model.schedule.decay=constant", "--model.schedule.warmup_steps=0"]
    assert command(["fit", *whole, *settings, "--trainer.max_steps=3"]) == 0
    capsys.readouterr()
    sparing = ["--sharding.gather=layer", "--sharding.offload=true", "--model.reasoner.gradient_checkpointing=true"]
    assert command(["fit", *spread, *settings, "--trainer.strategy=fsdp", *sparing]) == 0
    printed = capsys.readouterr().out
    assert "sharded with FSDP2 (which is what --trainer.strategy fsdp stands for)" in printed
    assert "gathered layer by layer in rollouts, kept in the host's memory" in printed
    run = tmp_path / "spread" / "debug_fast" / "version_0"
    assert (run / "checkpoints" / "last.ckpt" / "rank-0.pt").is_file()

    saved = ["--config", str(run / "config.yaml"), "--ckpt_path", str(run / "checkpoints" / "last.ckpt")]
    assert command(["test", *saved, "--data.test_size=1"]) == 0

    on = ["--trainer.strategy=auto", "--sharding.gather=model", "--sharding.offload=false", "--trainer.max_steps=3"]
    assert command(["fit", "--resume", str(run), *on]) == 0
    expected = adapter(tmp_path / "whole" / "debug_fast" / "version_0")
    found = adapter(run)
    assert any(value.any() for name, value in expected.items() if "lora_B" in name)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-5, msg=name)


def test_supervised_training_takes_the_same_flag(
    command: Command, weights: Path, benchmark_cache: Path, tmp_path: Path
) -> None:
    """With activations computed again; two steps, the first on one benchmark and the second on the other."""
    parts = [f"--model.{part}.path={weights / part}" for part in ("reasoner", "grounder", "propagator")]
    short = ["--trainer.max_steps=2", "--trainer.limit_val_batches=0", "--trainer.num_sanity_val_steps=0"]
    sizes = {
        "refavs": "{train: 2, val: 1, test_s: 1, test_u: 1, test_n: 1, null_train: 1, null_val: 1}",
        "revos": "{train: 4, valid: 1, non_existent_every: 1}",
    }
    data = ["--data.prompts_per_step=1", f"--data.avshapes_cache={benchmark_cache}"]
    for name, made in sizes.items():
        data += [f"--data.sources.{name}.train_size=2", f"--data.sources.{name}.avshapes_sizes={made}"]
    found = []
    for name, own in {
        "whole": ["--trainer.strategy=auto"],
        "spread": ["--trainer.strategy=fsdp", "--model.reasoner.gradient_checkpointing=true"],
    }.items():
        place = [f"--trainer.logger.save_dir={tmp_path / name}", "--trainer.accelerator=cpu", "--overlays.clips=0"]
        assert command(["fit", "--config=configs/baselines/sft.yaml", *parts, *short, *data, *place, *own]) == 0
        found.append(adapter(tmp_path / name / "baseline_sft" / "version_0"))
    assert any(value.any() for name, value in found[0].items() if "lora_B" in name)
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, rtol=0, atol=1e-5, msg=name)
