"""The benchmark of a step's memory runs, here at a tiny size and without a GPU, where it has nothing to measure."""

import pytest
import torch
from small_models import random_reasoner

from benchmarks import step_memory
from models.memory import Workload


def test_a_step_runs_and_is_planned() -> None:
    config = random_reasoner().thinker.config
    load = Workload(prompt_tokens=20, max_new_tokens=5, group_size=3, segmenter=None)
    table = step_memory.compare(config, load, torch.device("cpu"))
    assert list(table) == ["rollout", "update"]
    assert all(0 < row["planned"] < 0.1 and "measured" not in row for row in table.values())


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
    reasoner = step_memory.random_reasoner(random_reasoner().thinker.config, step_memory.LoRA(r=4), torch.device("cpu"))
    assert all(part.training for part in reasoner.language_model.modules()), "layers are computed again, as in a run"
    before = {name: p.detach().clone() for name, p in reasoner.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW([p for p in reasoner.parameters() if p.requires_grad], lr=1e-2)
    load = Workload(prompt_tokens=20, max_new_tokens=5, group_size=3, segmenter=None)
    assert step_memory.step(reasoner, optimizer, load, 0) == {}
    after = dict(reasoner.named_parameters())
    assert any(not torch.equal(after[name], value) for name, value in before.items())
