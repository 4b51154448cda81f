"""Rollouts on layers whose weights are there only while they run."""

from functools import partial
from types import SimpleNamespace

import pytest
from same_draws import ENDS, assert_alike, requests_of
from small_models import random_reasoner
from torch import nn

from datamodules.errors import ConfigError
from grpo.rollout_weights import rollout_weights
from grpo.sampling import Sampling
from grpo.shared_engine import SharedEngine
from models.reasoner import Reasoner


class Visits:
    """Writes down which layers are entered, and lets nothing run in a layer that is not."""

    def __init__(self, reasoner: Reasoner) -> None:
        self.layers = list(reasoner.language_model.layers)
        self.passes: list[list[int]] = []
        self.inside: nn.Module | None = None
        self.hooks = [
            part.register_forward_pre_hook(partial(self.check, layer))
            for layer in self.layers
            for part in layer.modules()
        ]

    def check(self, layer: nn.Module, *_: object) -> None:
        assert self.inside is layer, "the weights of this layer are elsewhere"

    def enter(self, layer: nn.Module) -> None:
        if self.inside is layer:
            return
        assert self.inside is None, "two layers at a time"
        self.inside = layer
        index = self.layers.index(layer)
        if index == 0:
            self.passes.append([])
        self.passes[-1].append(index)

    def leave(self, layer: nn.Module) -> None:
        self.check(layer)
        self.inside = None

    def end(self) -> None:
        for hook in self.hooks:
            hook.remove()


@pytest.fixture
def reasoner(monkeypatch: pytest.MonkeyPatch) -> Reasoner:
    monkeypatch.setattr(Reasoner, "end_of_turn_ids", property(lambda self: ENDS))
    return random_reasoner(gain=2.0, layers=3)


def test_layers_come_one_by_one_and_the_tokens_are_the_same(
    reasoner: Reasoner, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampling, requests = Sampling(max_new_tokens=8), requests_of(reasoner, [(20, 3), (7, 2), (9, 3)])
    visits = Visits(reasoner)
    with monkeypatch.context() as patch:
        patch.setattr(Reasoner, "visited", visits)
        found = SharedEngine(rollout_rows=4).sample(reasoner, requests, sampling)
    visits.end()
    assert_alike(reasoner, requests, found, sampling)
    assert len(visits.passes) > 3
    assert all(one == [0, 1, 2] for one in visits.passes)


def test_a_copy_of_layers_that_do_not_fit_is_refused(reasoner: Reasoner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Reasoner, "visited", SimpleNamespace())
    with pytest.raises(ConfigError, match=r"merge_adapter is true.*sharding\.gather is layer.*merge_adapter null"):
        rollout_weights(reasoner, merge=True)
