"""Symptoms are reported when they last, once each."""

import pytest
import torch
from stage import Logger, Writer, trainer_like

from callbacks.health import HealthMonitor

SYMPTOMS = {
    "frac_reward_zero_std": (1.0, "nothing to learn from"),
    "completions/parse_failures": (0.6, "could not be used"),
    "kl": (1.5, "away from the base model"),
    "completions/clipped_ratio": (0.9, "cut off by the token limit"),
}


def run(monitor: HealthMonitor, values: list[dict[str, float]]) -> list[str]:
    """Texts that are noted over some steps."""
    noted = []
    for step in values:
        writer = Writer()
        metrics = {name: torch.tensor(value) for name, value in step.items()}
        monitor.on_train_batch_end(trainer_like([Logger(writer)], callback_metrics=metrics), None, None, None, 0)
        noted += [text for text, _ in writer.texts.values()]
    return noted


@pytest.mark.parametrize("key", SYMPTOMS)
def test_a_lasting_symptom_is_named_once_with_a_cure(key: str) -> None:
    value, words = SYMPTOMS[key]
    noted = run(HealthMonitor(patience=3), [{key: value}] * 8)
    assert len(noted) == 1
    assert words in noted[0]
    assert "--model." in noted[0]


@pytest.mark.parametrize("key", SYMPTOMS)
def test_a_passing_symptom_is_not_named(key: str) -> None:
    value, _ = SYMPTOMS[key]
    assert run(HealthMonitor(patience=3), [{key: value}, {key: value}, {key: 0.0}] * 4) == []


def test_a_symptom_that_comes_back_is_not_named_again() -> None:
    bad, good = {"kl": 2.0}, {"kl": 0.0}
    assert len(run(HealthMonitor(patience=2), [bad, bad, good, bad, bad])) == 1


def test_nothing_logged_or_no_patience_is_silence() -> None:
    assert run(HealthMonitor(patience=1), [{}] * 3) == []
    assert run(HealthMonitor(patience=0), [{"kl": 9.0}] * 3) == []
