"""Groups of curves."""

import re

from stage import Logger, trainer_like

from callbacks.curves import LAYOUT, CurveGroups

LOGGED = (
    "reward", "reward_std", "frac_reward_zero_std", "rewards/format/mean", "kl", "entropy", "grad_norm", "lr",
    "clip_ratio/low_mean", "completions/mean_length", "completions/parse_failures", "val/jf", "val/reward",
    "val/null_accuracy", "time/rollout_s", "num_tokens", "throughput/prompt_tokens_per_s",
    "throughput/waiting_share", "memory/peak_gb",
)  # fmt: skip


class Writer:
    layout: dict[str, object] | None = None

    def add_custom_scalars(self, layout: dict[str, object]) -> None:
        self.layout = layout


class Sampling:
    last_groups = ()


def test_every_chart_shows_something_that_is_logged() -> None:
    for charts in LAYOUT.values():
        for name, patterns in charts.items():
            assert any(re.search(pattern, key) for pattern in patterns for key in LOGGED), name


def test_every_logged_key_is_in_a_chart() -> None:
    patterns = [pattern for charts in LAYOUT.values() for keys in charts.values() for pattern in keys]
    assert [key for key in LOGGED if not any(re.search(pattern, key) for pattern in patterns)] == []


def test_the_total_reward_is_not_mixed_with_its_terms() -> None:
    assert not any(re.search(pattern, "rewards/format/mean") for pattern in LAYOUT["progress"]["reward"])


def test_only_tensorboard_and_only_modules_that_sample_get_groups() -> None:
    writer = Writer()
    CurveGroups().on_fit_start(trainer_like([Logger(object()), Logger(None), Logger(writer)]), Sampling())
    assert writer.layout is not None
    assert list(writer.layout) == ["progress", "stability", "performance"]
    for trainer, module in [
        (trainer_like([Logger(Writer())]), object()),
        (trainer_like(is_global_zero=False), Sampling()),
    ]:
        CurveGroups().on_fit_start(trainer, module)
    other = Writer()
    CurveGroups(enabled=False).on_fit_start(trainer_like([Logger(other)]), Sampling())
    assert other.layout is None
