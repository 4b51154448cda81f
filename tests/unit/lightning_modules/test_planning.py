"""Whether a run fits, and which flags help where it does not."""

import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from doubles import LowTokens, module_of
from plans import LOAD, SEVEN

from datamodules.errors import ConfigError
from datamodules.modules import RefAVSDataModule, ReVOSDataModule
from lightning_modules.memory_advice import SMALLER
from lightning_modules.planning import judge, memory_table, workload
from lightning_modules.sharded_strategy import ShardedStrategy
from models.box_grounder import ReasonerGrounder
from models.memory import Workload, plan_memory
from models.propagator import SAM2Propagator
from models.reasoner import LoRA, Reasoner
from models.sizes import sizes_of
from models.system2_memory import Asking, Segmenter

TIGHT = replace(
    LOAD,
    is_sharded=True,
    gather="layer",
    offload=True,
    micro_batch_tokens=2048,
    rollout_rows=8,
    segmenter=Segmenter("large", frames_per_encode=4),
)
"""Everything that saves memory."""


def test_a_run_that_fits_needs_no_flag() -> None:
    verdict = judge(SEVEN, LOAD, 80.0)
    assert verdict.fits
    assert (verdict.advice.flags, verdict.message) == ((), "")


@pytest.mark.parametrize(
    ("load", "card_gb", "flags"),
    [
        (LOAD, 30.0, ("--model.propagator.frames_per_encode 4",)),
        (replace(LOAD, checkpointing=False), 48.0, ("--model.reasoner.gradient_checkpointing true",)),
        (replace(LOAD, base_bytes=4), 40.0, ("--model.reasoner.dtype bfloat16",)),
        (replace(LOAD, is_merged=True), 31.0, ("--model.grpo.merge_adapter null",)),
        # Of two that would do, the cheaper one.
        (replace(LOAD, checkpointing=False, prompts=4), 60.0, ("--model.grpo.micro_batch_tokens 4096",)),
        # Two that cost little, where one alone that costs much would do.
        (
            replace(LOAD, is_merged=True),
            30.0,
            ("--model.grpo.merge_adapter null", "--model.propagator.frames_per_encode 4"),
        ),
        (
            replace(LOAD, base_bytes=4, compute_bytes=4),
            40.0,
            ("--model.reasoner.dtype bfloat16", "--trainer.precision bf16-mixed"),
        ),
        (replace(LOAD, devices=8), 20.0, ("--trainer.strategy fsdp", "--sharding.gather layer")),
        # A merged copy of layers that come and go is refused, wherever it would fit.
        (
            replace(LOAD, is_merged=True),
            24.0,
            (
                "--trainer.strategy fsdp",
                "--sharding.gather layer",
                "--sharding.offload true",
                "--model.grpo.merge_adapter null",
            ),
        ),
        (replace(LOAD, devices=8, is_sharded=True, shards=2, gather="layer"), 20.0, ("--sharding.shard_size all",)),
        (LOAD, 18.0, None),
    ],
    ids=lambda value: "" if isinstance(value, Workload) else str(value),
)
def test_a_run_that_does_not_fit_is_told_what_costs_least(
    load: Workload, card_gb: float, flags: tuple[str, ...] | None
) -> None:
    """That the flags do help is tested where the command line reads them."""
    verdict = judge(SEVEN, load, card_gb)
    assert not verdict.fits
    assert verdict.advice.flags
    assert flags is None or set(verdict.advice.flags) == set(flags)
    assert f"{verdict.plan.peak:.1f} GB" in verdict.message
    assert f"which has {card_gb:.1f} GB. Set --" in verdict.message


def test_what_goes_to_the_host_is_named() -> None:
    """2 bytes per frozen weight, 16 per trained one: itself, its gradient and the optimizer's two numbers."""
    verdict = judge(SEVEN, LOAD, 12.0)
    assert "--sharding.offload true" in verdict.advice.flags
    assert "--trainer.strategy fsdp" in verdict.advice.flags
    expected = (2 * SEVEN.base + 16 * SEVEN.adapter) / 1e9
    assert verdict.message.endswith(f"Each device then takes {expected:.0f} GB of the host's memory.")
    spread = replace(LOAD, devices=4, is_sharded=True, shards=4, offload=True)
    assert (
        memory_table(judge(SEVEN, spread, 80.0)).caption == f"and {expected / 4:.1f} GB of the host's memory per device"
    )


def test_devices_that_cannot_be_divided_are_refused_as_in_the_run() -> None:
    with pytest.raises(ConfigError, match=r"shard_size is 8, which does not divide the 1 devices"):
        workload(module(), RefAVSDataModule(), devices=1, strategy=ShardedStrategy(8), precision="bf16-mixed")


@pytest.mark.parametrize("changes", [{}, {"base_bytes": 4, "compute_bytes": 4}], ids=["bfloat16", "float32"])
def test_a_pytorch_that_cannot_gather_mixed_types_is_not_told_to(
    changes: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A float32 base may still be spread, but not in bfloat16; the release that can is named with what it allows."""
    load = replace(LOAD, devices=8, **changes)
    able = judge(SEVEN, load, 20.0).advice
    assert "--trainer.strategy fsdp" in able.flags
    monkeypatch.setattr(torch, "__version__", "2.14.1+cu130")
    verdict = judge(SEVEN, load, 20.0)
    assert verdict.advice.flags
    assert ("--trainer.strategy fsdp" in verdict.advice.flags) == bool(changes)
    assert "--model.reasoner.dtype bfloat16" not in verdict.advice.flags
    assert verdict.message.endswith(f"With PyTorch 2.15 or later: {able}")


def test_a_base_that_is_spread_already_is_planned_for_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", "2.14.1")
    spread = replace(LOAD, devices=8, is_sharded=True, shards=8)
    assert judge(SEVEN, spread, 20.0).advice.flags == ("--sharding.gather layer",)


def test_merging_layers_that_come_and_go_is_refused_before_weights_are_read() -> None:
    made, layered = module(), ShardedStrategy(gather="layer")
    made.grpo = replace(made.grpo, merge_adapter=True)
    with pytest.raises(ConfigError, match=r"merge_adapter is true.*Set --model\.grpo\.merge_adapter null, or --shard"):
        workload(made, RefAVSDataModule(), devices=2, strategy=layered, precision="bf16-mixed")


def test_the_table_names_the_frames_that_system_2_keeps() -> None:
    """Without `data.clip_frames` no setting says how many a clip has."""
    assert LOAD.segmenter is not None
    assert f"System 2 with {LOAD.segmenter.kept_frames} frames" in str(memory_table(judge(SEVEN, LOAD, 80.0)).title)


def test_held_out_clips_that_are_looked_at_whole_have_so_much_room() -> None:
    """As many frames as fit, and not one more; nothing is said where a setting bounds them."""
    whole = replace(LOAD, is_whole_held_out=True)
    caption = str(memory_table(judge(SEVEN, whole, 48.0)).caption)
    room = int(re.search(r"there is room for (\d+) frames", caption).group(1))
    for frames, fits in ((room, True), (room + 1, False)):
        held = replace(LOAD, segmenter=replace(LOAD.segmenter, kept_frames=frames))
        assert (plan_memory(SEVEN, held).totals[2] <= 48.0) == fits
    assert memory_table(judge(SEVEN, LOAD, 48.0)).caption is None


def test_a_bound_on_held_out_clips_is_planned_with() -> None:
    for bound, frames in ((None, 30), (90, 90), (8, 30)):
        data = ReVOSDataModule(glance_frames=24, clip_frames=30, eval_clip_frames=bound)
        _, load = workload(module(), data, devices=1, strategy="auto", precision="bf16-mixed")
        assert (load.segmenter.kept_frames, load.is_whole_held_out) == (frames, bound is None)


def test_a_run_that_nothing_helps_is_told_so() -> None:
    verdict = judge(SEVEN, LOAD, 2.0)
    assert verdict.advice.flags == ()
    assert verdict.message.endswith("Use more or larger devices.")


def test_the_smaller_model_is_advised_to_the_larger_one_only() -> None:
    three = sizes_of(SMALLER, LoRA(r=64))
    needed = plan_memory(three, TIGHT).peak
    assert judge(SEVEN, LOAD, needed + 0.01).advice.flags[0] == f"--model.reasoner.path {SMALLER}"
    assert judge(three, LOAD, needed - 0.5).advice.flags == ()


def module():
    reasoner = Reasoner("Qwen/Qwen2.5-Omni-3B", lora=LoRA(r=64), dtype="bfloat16", gradient_checkpointing=True)
    made = module_of(reasoner, rewards={"low": LowTokens()}, optimizer=torch.optim.AdamW, rollout_rows=16)
    made.propagator = SAM2Propagator("facebook/sam2.1-hiera-small", frames_per_encode=4)
    return made


def test_a_workload_is_what_is_configured() -> None:
    """10 frames with 10 s of sound: 5 x 128 + 250 tokens, and 600 for the text."""
    sizes, load = workload(
        module(),
        RefAVSDataModule(glance_frames=10),
        devices=4,
        strategy=ShardedStrategy(2, gather="layer", offload=True),
        precision="bf16-mixed",
    )
    assert sizes.base / 1e9 == pytest.approx(4.7, abs=0.05)
    assert (load.devices, load.shards, load.is_sharded, load.gather, load.offload) == (4, 2, True, "layer", True)
    assert (load.base_bytes, load.compute_bytes, load.states, load.checkpointing) == (2, 2, 2, True)
    assert (load.is_shared, load.rollout_rows, load.group_size) == (True, 16, 4)
    assert load.prompt_tokens == 5 * 128 + 250 + 600
    assert load.segmenter == Segmenter("small", frames_per_encode=4, objects_per_pass=32, kept_frames=10)


def test_a_base_that_is_asked_for_boxes_is_planned_with() -> None:
    """900 tokens of 28 x 28 pixels and what stands before them; four rollouts with four keyframes each."""
    made = module()
    made.grounder = ReasonerGrounder(max_new_tokens=99, batch_size=12, shared=False)
    data = RefAVSDataModule(close_up_max_pixels=900 * 28 * 28)
    _, load = workload(made, data, devices=1, strategy="auto", precision="bf16-mixed")
    assert load.asking == Asking(920, keyframes=16, group_size=4, batch_size=12, answer_tokens=99, shared=False)


def test_fewer_questions_at_a_time_are_a_way_out() -> None:
    load = replace(LOAD, segmenter=None, asking=Asking(4000, keyframes=64, batch_size=64))
    verdict = judge(SEVEN, load, 40.0)
    assert verdict.advice.flags == ("--model.grounder.batch_size 4",)
    assert "GB for the boxes on each device" in verdict.message


def test_silent_data_and_whole_models_are_told_apart() -> None:
    data = ReVOSDataModule(glance_frames=24, clip_frames=30, prompts_per_step=2)
    _, load = workload(module(), data, devices=2, strategy="ddp", precision="32-true")
    assert load.prompt_tokens == 12 * 128 + 600
    assert (load.is_sharded, load.shards, load.compute_bytes, load.prompts) == (False, 1, 4, 2)
    assert load.segmenter is not None
    assert load.segmenter.kept_frames == 30


def test_a_mixture_is_as_large_as_its_largest_parts() -> None:
    """Clips of RefAVS have ten frames, also where there may be more."""
    parts = {"a": RefAVSDataModule(glance_frames=24), "b": ReVOSDataModule(glance_frames=4, clip_frames=30)}
    data = SimpleNamespace(parts=parts, prompts_per_step=1)
    _, load = workload(module(), data, devices=1, strategy="auto", precision="bf16-mixed")
    assert load.prompt_tokens == 5 * 128 + 250 + 600
    assert load.segmenter is not None
    assert load.segmenter.kept_frames == 30


def test_the_table_shows_every_part_and_the_sum() -> None:
    verdict = judge(SEVEN, LOAD, 80.0)
    table = memory_table(verdict)
    assert list(table.columns[0].cells) == [*verdict.plan.rows, "all"]
    assert list(table.columns[4].cells)[-1] == f"{verdict.plan.totals[3]:.2f}"
    assert "on 1 device: 8.93 billion frozen weights, 161.5 million trained" in str(table.title)
