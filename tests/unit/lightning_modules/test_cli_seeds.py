import pytest
from jsonargparse import Namespace

from lightning_modules.cli_seeds import fill_seeds


def config(run: int | bool | None, sampling: int | None = None) -> Namespace:
    settings = Namespace(seed_everything=run)
    settings["model.init_args.sampling.seed"] = sampling
    settings["data.init_args.root"] = "avshapes"
    return settings


@pytest.mark.parametrize(
    ("run", "sampling", "expected"), [(3, None, 3), (0, None, 0), (3, 0, 0), (False, None, None), (None, None, None)]
)
def test_open_seeds_follow_the_run_and_given_ones_stay(run, sampling, expected):
    settings = config(run, sampling)
    fill_seeds(settings)
    assert settings.model.init_args.sampling.seed == expected


def test_a_part_without_a_seed_gets_none():
    """Recipes have models that do not sample and data without the setting."""
    settings = config(3)
    fill_seeds(settings)
    assert settings.data.init_args == Namespace(root="avshapes")
