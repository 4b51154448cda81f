"""The memory plan: what is held when, against hand-made sums and against what autograd really keeps."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from plans import LOAD, SEVEN

from grpo.engine import ScoreRequest
from grpo.packed_layers import packed_states
from grpo.packing import pack
from models.adapter import LoRA
from models.memory import GB, PHASES, Held, plan_memory, prompt_tokens, saved_per_token
from models.processing import EncodedPrompt
from models.reasoner import Reasoner
from models.sizes import measure
from models.system2_memory import Asking, Segmenter
from models.tiny.reasoner import TinySizes, build_processor, build_thinker, build_tokenizer


def planned(**changes: object) -> dict[str, Held]:
    return plan_memory(SEVEN, replace(LOAD, **changes)).rows


def test_the_table_adds_up() -> None:
    plan = plan_memory(SEVEN, LOAD)
    for index in range(len(PHASES)):
        assert plan.totals[index] == pytest.approx(sum(row[index] for row in plan.rows.values()))
    assert plan.peak == max(plan.totals)


def test_weights_gradients_and_optimizer_are_what_they_are() -> None:
    """2 bytes per frozen weight; 4 per trained weight, gradient and each of Adam's two states."""
    rows = planned()
    assert rows["base weights"] == (pytest.approx(2 * SEVEN.base / GB),) * 4
    trained = 4 * SEVEN.adapter / GB
    assert rows["adapter weights"] == (pytest.approx(trained),) * 4
    assert rows["gradients"] == (0, 0, 0, pytest.approx(trained))
    assert rows["optimizer"] == pytest.approx((*(2 * trained,) * 3, 3 * trained)), "one more while it steps"
    assert planned(devices=2)["gradients"][3] == pytest.approx(2 * trained), "averaged in a copy"


def test_a_rollout_has_the_adapter_in_16_bits_as_well() -> None:
    """Unless it computes in 32, or holds no layers."""
    assert planned()["copies for rollouts"] == (pytest.approx(2 * SEVEN.adapter / GB), 0, 0, 0)
    for change in ({"compute_bytes": 4}, {"is_shared": False}, {"is_sharded": True, "gather": "layer"}):
        assert planned(**change)["copies for rollouts"] == (0, 0, 0, 0)


def test_keys_and_values_of_a_prompt_exist_once() -> None:
    """57 344 bytes per token at 7B: 28 layers, keys and values, 512 numbers of 2 bytes."""
    cache = planned(prompt_tokens=1000, max_new_tokens=100)["KV cache"][0]
    assert cache == pytest.approx(57_344 * (1000 + 8 * 100 + 1000) / GB), "and the prompt once more while it is read"
    plain = planned(prompt_tokens=1000, max_new_tokens=100, is_shared=False)["KV cache"][0]
    assert plain > 3 * cache


def test_shards_hold_their_share_and_gather_what_they_need() -> None:
    whole, layer = (planned(devices=4, is_sharded=True, shards=4, gather=gather) for gather in ("model", "layer"))
    assert whole["base weights"] == (pytest.approx(2 * SEVEN.base / 4 / GB),) * 4
    assert whole["base weights, gathered"][0] > 2 * SEVEN.base / GB
    assert layer["base weights, gathered"][0] < whole["base weights, gathered"][0] / 2
    assert whole["base weights, gathered"][3] == layer["base weights, gathered"][3], "updates go layer by layer anyway"
    assert planned(is_sharded=True, offload=True, gather="layer")["base weights"] == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("change", "part", "phase"),
    [
        ({"checkpointing": False}, "activations", 3),
        ({"micro_batch_tokens": 32768, "prompts": 4}, "activations", 3),
        ({"prompts": 4}, "KV cache", 0),
        ({"is_merged": True}, "copies for rollouts", 0),
        ({"base_bytes": 4}, "base weights", 0),
        ({"is_shared": False, "micro_batch_tokens": 4096}, "logits", 3),
        ({"segmenter": Segmenter("large", kept_frames=200)}, "System 2", 2),
        ({"detector_bytes": 10**9}, "System 2", 1),
        ({"asking": Asking(900)}, "KV cache", 1),
        ({"asking": Asking(900)}, "activations", 1),
        ({"asking": Asking(900)}, "logits", 1),
    ],
    ids=lambda value: str(value),
)
def test_what_costs_memory_shows(change: dict[str, object], part: str, phase: int) -> None:
    assert planned(**change)[part][phase] > planned()[part][phase]


def test_keys_and_values_of_a_keyframe_exist_once() -> None:
    """Keyframes of 900 tokens, questions with answers of 400: one each about 16, then eight about one."""
    few = {"question_tokens": 150, "answer_tokens": 250}
    apart = planned(asking=Asking(900, keyframes=16, group_size=1, **few))
    assert apart["KV cache"][1] == pytest.approx(57_344 * 16 * (900 + 400) * (1 + 1 / 28) / GB)
    assert apart["logits"][1] == pytest.approx(16 * 152_064 * 12 / GB)
    together = planned(asking=Asking(900, keyframes=1, group_size=8, **few))
    assert together["KV cache"][1] == pytest.approx(57_344 * (900 + 8 * 400) * (1 + 1 / 28) / GB)
    plain = planned(asking=Asking(900, keyframes=1, group_size=8, shared=False, **few))
    assert plain["KV cache"][1] == pytest.approx(57_344 * 8 * (900 + 400) * (1 + 1 / 28) / GB)
    assert plain["activations"][1] > together["activations"][1]


@pytest.mark.parametrize("counts", [[1], [3], [1, 1, 1, 1, 1], [3, 1], [3, 1, 1], [2, 2, 1]], ids=str)
@pytest.mark.parametrize("shared", [True, False])
def test_no_more_tokens_are_kept_or_read_than_planned(make_reasoner, monkeypatch, counts, shared) -> None:
    """Up to five questions together, up to three of them about one image."""
    reasoner, kept, read = make_reasoner(gain=4.0), [0], [0]
    monkeypatch.setattr(type(reasoner), "end_of_turn_ids", (0,))
    images = [np.full((56, 84, 3), 40 * number, np.uint8) for number in range(len(counts))]
    questions = [(image, "where") for image, count in enumerate(counts) for _ in range(count)]

    def look(module: object, args: object, given: dict[str, Any], output: torch.Tensor) -> None:
        keys = given["past_key_values"].layers[0].keys
        kept.append(keys.shape[0] * keys.shape[2])
        read.append(output.shape[0] * output.shape[1])

    reasoner.language_model.layers[0].register_forward_hook(look, with_kwargs=True)
    reasoner.generate_text(images, questions, max_new_tokens=6, shared=shared)
    asking = Asking(
        image_tokens=reasoner.builder.images_only(images)["input_ids"].shape[1],
        keyframes=5,
        group_size=3,
        batch_size=5,
        question_tokens=len(reasoner.builder.turn_ids("where", media="image")),
        answer_tokens=6,
        shared=shared,
    )
    assert asking.questions == 5
    assert max(kept) <= asking.kept_tokens
    assert max(read) <= asking.pass_tokens
    if len(questions) == 5 and (len(images) == 5 or not shared):
        assert (max(kept), max(read)) == (asking.kept_tokens - 5, asking.pass_tokens), "the last token is never read"


def test_a_prompt_is_frames_in_pairs_and_sound_and_text() -> None:
    """128 tokens per pair of frames of 100 352 pixels, 25 per second of sound."""
    assert prompt_tokens(SEVEN, frames=10, pixels=100_352, sound_s=10.0, text_tokens=600) == 5 * 128 + 250 + 600
    assert prompt_tokens(SEVEN, frames=1, pixels=784, sound_s=0.0, text_tokens=0) == 1


def small(layers: int) -> Reasoner:
    """A bfloat16 base with a float32 adapter."""
    tokenizer = build_tokenizer(["find the red circle"], vocabulary=270)
    sizes = TinySizes(
        hidden=256, layers=layers, heads=4, key_value_heads=2, feed_forward=640, vision_layers=1, audio_layers=1
    )
    reasoner = Reasoner(template="short", lora=LoRA(r=32, alpha=8))
    reasoner.attach(build_thinker(tokenizer, sizes, seed=0).to(torch.bfloat16), build_processor(tokenizer, sizes))
    return reasoner.train()


def kept_by_autograd(reasoner: Reasoner) -> tuple[int, int]:
    """Bytes saved for the backward pass of a packed row, weights aside, and the tokens of the row."""
    prompt = EncodedPrompt(
        "prompt",
        torch.zeros(1, 64, dtype=torch.long),
        torch.randn(1, 64, 256, dtype=torch.bfloat16),
        torch.arange(64).expand(3, 1, 64).clone(),
        64,
    )
    own = {parameter.untyped_storage().data_ptr() for parameter in reasoner.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False), hooks:
        row = pack(reasoner, [ScoreRequest(prompt, [torch.ones(17, dtype=torch.long)] * 4)])
        packed_states(
            reasoner.language_model,
            row.embeddings,
            row.positions,
            layout=row.layout,
            kept=row.kept,
            kept_layout=row.kept_layout,
        )
    return sum(storage.nbytes() for storage in kept.values()), row.embeddings.shape[1]


def test_a_layer_keeps_what_is_planned() -> None:
    """The difference between four layers and three is one layer that is not the last."""
    torch.manual_seed(0)
    three, four = small(3), small(4)
    (less, tokens), (more, _) = kept_by_autograd(three), kept_by_autograd(four)
    sizes = measure(four.thinker.config, LoRA(r=32, alpha=8))
    converted = 2 * sizes.adapter / sizes.layers
    assert more - less == pytest.approx(tokens * saved_per_token(sizes) + converted, rel=0.01)
