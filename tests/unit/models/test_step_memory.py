"""The benchmark of a step's memory runs, here at a tiny size and without a GPU, where it has nothing to measure."""

from dataclasses import replace

import pytest
import torch
from small_models import random_reasoner

from benchmarks import step_memory
from models.memory import Workload
from models.system2_memory import Asking, Segmenter
from models.tiny.propagator import build_tiny_propagator

LOAD = Workload(
    prompt_tokens=20,
    max_new_tokens=5,
    group_size=3,
    segmenter=Segmenter("tiny", kept_frames=2),
    asking=Asking(image_tokens=4, keyframes=3, group_size=3, answer_tokens=3),
)
CPU = torch.device("cpu")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple[int, ...], list[int]]]:
    """Shape of the keyframes and number of questions about each, call by call."""
    seen: list[tuple[tuple[int, ...], list[int]]] = []
    find = step_memory.ReasonerGrounder.find

    def note(self, images, descriptions):
        seen.append((images.shape, [len(row) for row in descriptions]))
        return find(self, images, descriptions)

    monkeypatch.setattr(step_memory.ReasonerGrounder, "find", note)
    return seen


def test_a_step_runs_and_is_planned(asked) -> None:
    """Two steps; in each every keyframe is asked about once, and one of them by a whole group."""
    table = step_memory.compare(random_reasoner().thinker.config, LOAD, CPU, build_tiny_propagator())
    assert asked == [((3, 56, 56, 3), [1, 1, 1]), ((1, 56, 56, 3), [3])] * 2
    assert list(table) == ["rollout", "boxes", "masks", "update"]
    assert all(0 < row["planned"] < 5 and "measured" not in row for row in table.values())


@pytest.mark.parametrize("is_kept", [False, True])
def test_activations_are_kept_where_the_workload_says_so(is_kept: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    made, build = [], step_memory.random_reasoner
    monkeypatch.setattr(step_memory, "random_reasoner", lambda *a, **more: made.append(build(*a, **more)) or made[-1])
    load = replace(LOAD, checkpointing=not is_kept)
    step_memory.compare(random_reasoner().thinker.config, load, CPU, build_tiny_propagator())
    assert made[0].gradient_checkpointing != is_kept
    assert {load.checkpointing for load in step_memory.WORKLOADS.values()} == {False, True}


def test_a_plan_that_is_off_is_named() -> None:
    row = {"planned": 11.0, "measured": 10.0, "planned / measured": 1.1}
    assert step_memory.off({"device": "a card", "3B": {"rollout": row}}) == []
    row |= {"planned": 8.0, "planned / measured": 0.8}
    assert step_memory.off({"3B": {"rollout": row}}) == ["3B, rollout: planned 8.0 GB, measured 10.0 GB"]


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["step_memory.py"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert step_memory.main() == 2
    assert "there is no GPU here" in capsys.readouterr().err


def test_random_weights_are_trained_on() -> None:
    """After a step the adapter has moved."""
    torch.manual_seed(0)
    reasoner = step_memory.random_reasoner(random_reasoner().thinker.config, step_memory.LoRA(r=4), CPU)
    assert all(part.training for part in reasoner.language_model.modules()), "layers are computed again, as in a run"
    before = {name: p.detach().clone() for name, p in reasoner.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW([p for p in reasoner.parameters() if p.requires_grad], lr=1e-2)
    system_2 = step_memory.random_system_2(reasoner, LOAD, build_tiny_propagator())
    assert step_memory.step(reasoner, system_2, optimizer, LOAD, 0) == {}
    after = dict(reasoner.named_parameters())
    assert any(not torch.equal(after[name], value) for name, value in before.items())


def test_every_object_of_a_group_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two per rollout, which is what the plan counts with."""
    reasoner = step_memory.random_reasoner(random_reasoner().thinker.config, step_memory.LoRA(r=4), CPU)
    system_2 = step_memory.random_system_2(reasoner, LOAD, build_tiny_propagator())
    tracks, propagate = [], system_2.propagator.propagate
    monkeypatch.setattr(system_2.propagator, "propagate", lambda *a: tracks.extend(propagate(*a)))
    with torch.no_grad(), step_memory.evaluation_mode(reasoner):
        step_memory.look_closer(system_2, 3, 0, CPU)
    assert [len(track.counts[0]) for track in tracks] == [2, 2, 2]


def test_without_system_2_there_is_nothing_to_compare() -> None:
    with pytest.raises(ValueError, match="expected a workload with both halves of System 2"):
        step_memory.random_system_2(random_reasoner(), Workload(segmenter=None), build_tiny_propagator())
