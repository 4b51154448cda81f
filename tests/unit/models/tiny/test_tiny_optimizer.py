import copy

import pytest
import torch

from models.tiny.optimizer import MuonAdamW


def parameters(seed: int = 0) -> tuple[torch.nn.Parameter, torch.nn.Parameter]:
    torch.manual_seed(seed)
    return torch.nn.Parameter(torch.randn(6, 4)), torch.nn.Parameter(torch.randn(5))


def run(optimizer: MuonAdamW, matrix: torch.Tensor, vector: torch.Tensor, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        ((matrix - 1) ** 2).sum().add((vector**4).sum()).backward()
        optimizer.step()


def test_each_part_does_what_it_does_alone():
    matrix, vector = parameters()
    run(MuonAdamW([matrix], [vector], matrix_learning_rate=0.1, learning_rate=0.01), matrix, vector, 3)
    for index, make in enumerate(
        (
            lambda p: torch.optim.Muon([p], lr=0.1, weight_decay=0.01),
            lambda p: torch.optim.AdamW([p], lr=0.01, betas=(0.9, 0.98), weight_decay=0.0),
        )
    ):
        alone = parameters()[index]
        optimizer = make(alone)
        for _ in range(3):
            optimizer.zero_grad()
            (((alone - 1) ** 2).sum() if index == 0 else (alone**4).sum()).backward()
            optimizer.step()
        assert torch.equal(alone, (matrix, vector)[index])


def test_a_schedule_reaches_both_parts():
    """At a factor of 0 nothing moves."""
    matrix, vector = parameters()
    before = matrix.detach().clone(), vector.detach().clone()
    optimizer = MuonAdamW([matrix], [vector])
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 0.0)
    run(optimizer, matrix, vector, 2)
    assert torch.equal(matrix, before[0])
    assert torch.equal(vector, before[1])


def test_saved_and_taken_back_it_goes_on_the_same():
    matrix, vector = parameters()
    optimizer = MuonAdamW([matrix], [vector])
    run(optimizer, matrix, vector, 3)
    state = copy.deepcopy(optimizer.state_dict())
    copies = [torch.nn.Parameter(value.detach().clone()) for value in (matrix, vector)]
    again = MuonAdamW([copies[0]], [copies[1]])
    again.load_state_dict(state)
    scheduled = torch.optim.lr_scheduler.LambdaLR(again, lambda _: 1.0)
    run(optimizer, matrix, vector, 2)
    run(again, *copies, 2)
    assert torch.equal(copies[0], matrix)
    assert torch.equal(copies[1], vector)
    assert scheduled.get_last_lr() == [0.02, 2e-3]


def test_a_closure_is_called_once():
    matrix, vector = parameters()
    optimizer, calls = MuonAdamW([matrix], [vector]), []

    def closure() -> float:
        calls.append(1)
        ((matrix.sum() + vector.sum()) ** 2).backward()
        return 7.0

    assert optimizer.step(closure) == 7.0
    assert calls == [1]


def test_vectors_are_no_matrices():
    with pytest.raises(ValueError, match="2D"):
        MuonAdamW([parameters()[1]], [])
