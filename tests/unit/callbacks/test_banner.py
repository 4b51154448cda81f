"""What is said before a run starts."""

from types import SimpleNamespace

import pytest
from stage import Logger, Writer, trainer_like
from torch import nn

from callbacks.banner import StartBanner, batch_rows, warn_about_tiny_weights
from grpo.settings import GRPOSettings


class Module(nn.Module):
    updates_per_batch = 2
    grpo = GRPOSettings(group_size=8, updates_per_rollout=2, micro_batch_tokens=4096)

    def __init__(self, path: str = "weights/tiny/reasoner") -> None:
        super().__init__()
        self.reasoner = nn.Linear(3, 2)
        self.reasoner.path = path
        self.reasoner.bias.requires_grad_(False)


class Data:
    prompts_per_step = 4

    def __init__(self, root: str = "avshapes") -> None:
        self.root = root

    def steps_per_epoch(self, *, updates_per_rollout: int) -> int:
        return 25 * updates_per_rollout


def trainer(**more: object):
    strategy = SimpleNamespace(root_device=SimpleNamespace(type="cpu"))
    return trainer_like(datamodule=Data(), strategy=strategy, precision="32-true", max_steps=20, world_size=2, **more)


def test_batch_words_stand_beside_their_products() -> None:
    """4 prompts on 2 processes, 8 completions each: 64 completions; 20 optimizer steps are 10 rollout steps."""
    rows = dict(batch_rows(trainer(), Module()))
    assert rows["prompts_per_step"] == "4 on each of 2 processes = 8"
    assert rows["completions per rollout step"] == "8 x 8 = 64"
    assert rows["optimizer steps per epoch"] == "50"
    assert rows["planned steps"] == "20 optimizer steps = 10 rollout steps, 640 completions"


def test_modules_without_groups_have_no_batch_table() -> None:
    assert batch_rows(trainer(), nn.Linear(1, 1)) == []


def test_the_banner_counts_weights_and_names_the_folder(capsys: pytest.CaptureFixture[str], tmp_path) -> None:
    StartBanner().on_fit_start(trainer(loggers=[Logger(Writer())], folder=None, log_dir=str(tmp_path)), Module())
    printed = capsys.readouterr().out
    reasoner = next(line for line in printed.splitlines() if "reasoner" in line)
    assert [cell.strip() for cell in reasoner.strip("│").split("│")] == ["reasoner", "6", "2"]
    assert str(tmp_path) in printed.replace("\n", "")


@pytest.mark.parametrize(
    ("adapter", "beta", "is_said"), [("runs/a", 0.04, True), ("runs/a", 0.0, False), (None, 0.04, False)]
)
def test_a_start_that_the_penalty_pulls_away_from_is_named(
    adapter: str | None, beta: float, is_said: bool, capsys: pytest.CaptureFixture[str], tmp_path
) -> None:
    module = Module()
    module.reasoner.adapter, module.grpo = adapter, GRPOSettings(beta=beta)
    StartBanner().on_fit_start(trainer(loggers=[Logger(Writer())], folder=None, log_dir=str(tmp_path)), module)
    assert ("starts from the adapter in runs/a, and the KL penalty" in capsys.readouterr().out) is is_said


def test_the_banner_can_be_off_and_other_processes_are_silent(capsys: pytest.CaptureFixture[str]) -> None:
    StartBanner(enabled=False).on_fit_start(trainer(), Module())
    StartBanner().on_fit_start(trainer(is_global_zero=False), Module())
    assert not capsys.readouterr().out


@pytest.mark.parametrize(
    ("root", "path", "is_said"),
    [
        ("/data/refavs", "weights/tiny/reasoner", True),
        ("avshapes", "weights/tiny/reasoner", False),
        ("/data/refavs", "Qwen/Qwen2.5-Omni-7B", False),
    ],
)
def test_tiny_weights_on_real_data_are_named(root: str, path: str, is_said: bool) -> None:
    writer = Writer()
    warn_about_tiny_weights(trainer_like([Logger(writer)], datamodule=Data(root)), Module(path))
    assert ("--model.reasoner.path weights/tiny/reasoner" in writer.texts.get("notices", ("", 0))[0]) is is_said


@pytest.mark.parametrize(("roots", "said"), [(["avshapes"] * 2, ""), (["avshapes", "/disk2/ReVOS"], "/disk2/ReVOS")])
def test_tiny_weights_on_a_real_source_of_a_mixture_are_named(roots: list[str], said: str) -> None:
    """The mixture's own root is the generated one then."""
    writer, data = Writer(), Data()
    data.parts = {str(number): Data(root) for number, root in enumerate(roots)}
    warn_about_tiny_weights(trainer_like([Logger(writer)], datamodule=data), Module())
    notice = writer.texts.get("notices", ("", 0))[0]
    assert (f"The data are {said}, but the weights are the embedded tiny ones" in notice) == bool(said)
