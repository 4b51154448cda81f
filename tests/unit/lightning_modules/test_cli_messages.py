"""Messages of the argument parser become one line that names the key, the fault and the nearest valid key.

The texts are what jsonargparse 4.53 prints for the settings of `Model` below.
"""

from dataclasses import dataclass

import pytest

from lightning_modules.cli_messages import one_line, suggestion


@dataclass
class Settings:
    """Nested settings."""

    group_size: int = 8
    beta: float = 0.04


class Reasoner:
    """A class that a setting expects."""

    def __init__(self, path: str = "here") -> None:
        self.path = path


class Model:
    """A class with nested settings."""

    def __init__(self, reasoner: Reasoner, *, grpo: Settings | None = None, lr: float = 1e-3) -> None:
        self.reasoner, self.grpo, self.lr = reasoner, grpo, lr


HERE = __name__
KEYS = ["trainer.devices", "trainer.max_epochs", "rewards", "config", "model", "data"]


def tree(key: str, inner: str, value: str = "x") -> str:
    """The parser's text about a class of which something could not be used."""
    indented = "\n".join(" " * 8 + line for line in inner.splitlines())
    return (
        f'Parser key "{key}":\n'
        "  Does not validate against any of the Union subtypes\n"
        f"  Subtypes: [<class '{HERE}.Model'>, <class 'NoneType'>]\n"
        "  Errors:\n"
        f"    - Problem with given class_path '{HERE}.Model':\n"
        f"{indented}\n"
        "    - Expected a <class 'NoneType'>\n"
        "  Given value type: <class 'dict'>\n"
        f"  Given value: {value}"
    )


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            "unrecognized arguments: --trainer.devcies 2",
            "trainer.devcies is no setting; did you mean `trainer.devices`?",
        ),
        (
            "Subcommand 'fit' does not accept option 'rewadrs.format.init_args.weight'",
            "rewadrs.format.init_args.weight is no setting; did you mean `rewards`?",
        ),
        (tree("model", "Option 'lrr' is not accepted"), "model.lrr is no setting of Model; did you mean `model.lr`?"),
        (
            tree(
                "model",
                f"Parser key \"reasoner\":\n  Problem with given class_path '{HERE}.Reasoner':\n    "
                + "Option 'paht' is not accepted",
            ),
            "model.reasoner.paht is no setting of Reasoner; did you mean `model.reasoner.path`?",
        ),
        (
            tree(
                "model",
                f"Parser key \"reasoner\":\n  Problem with given class_path '{HERE}.Reasoner':\n    "
                + "the following arguments are required: path",
            ),
            "model.reasoner.path required by Reasoner, but not given",
        ),
        (
            tree("model", "Parser key \"grpo.beta\":\n  Expected a <class 'float'>. Got value: abc"),
            "model.grpo.beta is abc, expected float",
        ),
        (
            tree(
                "model", "Parser key \"grpo.loss_type\":\n  Expected a typing.Literal['grpo', 'dapo']. Got value: grop"
            ),
            "model.grpo.loss_type is grop, expected one of 'grpo', 'dapo'; did you mean `grpo`?",
        ),
        (
            tree("model", f"module '{HERE}' has no attribute 'Reasonr'"),
            f"model: there is no class `{HERE}.Reasonr`; did you mean `{HERE}.Reasoner`?",
        ),
        (
            'Parser key "trainer.max_epochs":\n  Does not validate against any of the Union subtypes\n'
            "  Subtypes: [<class 'int'>, <class 'NoneType'>]\n  Errors:\n    - Expected a <class 'int'>\n"
            "    - Expected a <class 'NoneType'>\n  Given value type: <class 'str'>\n  Given value: abc",
            "trainer.max_epochs is abc, expected int",
        ),
        (
            "argument subcommand: invalid choice: 'fitt' (choose from 'fit', 'validate', 'test', 'predict')",
            "`fitt` is none of fit, validate, test, predict; did you mean `fit`?",
        ),
        (
            'expected "subcommand" to be one of {fit,validate,test,predict}, but it was not provided.',
            "say what to do first: fit, validate, test or predict; for example `fit --config configs/refavs.yaml`",
        ),
        (
            "the following arguments are required: fit.data, fit.model",
            "no data and model given. Name a run, for example --config configs/refavs.yaml",
        ),
        (
            "Problems parsing config: while parsing a block mapping\n  in line 3\ndid not find expected key",
            "Problems parsing config: while parsing a block mapping in line 3 did not find expected key",
        ),
        ("Something that nobody\n  has seen before", "Something that nobody"),
    ],
)
def test_a_message_becomes_one_line(message: str, expected: str) -> None:
    assert one_line(message, KEYS) == expected


def test_the_name_of_a_mapping_entry_comes_from_the_command_line() -> None:
    """The parser says `rewards` and the option; which of the rewards was meant stands in the flag alone."""
    message = tree("rewards", "Option 'll' is not accepted")
    line = one_line(message, KEYS, ["fit", "--rewards.format.ll", "1"])
    assert line == "rewards.format.ll is no setting of Model; did you mean `rewards.format.lr`?"


def test_a_setting_of_a_nested_record_is_found() -> None:
    message = tree("model", "unrecognized arguments: --betta=0")
    assert one_line(message, KEYS).startswith("model.betta is no setting of Model")


def test_a_flag_without_its_value_is_named_in_full() -> None:
    message = "argument --model: expected one argument"
    assert one_line(message, KEYS, ["fit", "--model.lr", "--data.root", "x"]) == "--model.lr needs a value"


def test_a_missing_file_is_named_with_the_nearest_config(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "refavs.yaml").touch()
    monkeypatch.chdir(tmp_path)
    message = f"Parser key \"config\": File does not exist: '{tmp_path}/configs/refav.yaml'"
    assert (
        one_line(message, KEYS)
        == f"there is no file {tmp_path}/configs/refav.yaml; did you mean `configs/refavs.yaml`?"
    )


def test_an_unknown_class_is_compared_with_all_subclasses() -> None:
    """`Given value` ends the branch, `Subtypes` says whose subclasses would do."""

    class TinyReasoner(Reasoner):
        """A loaded subclass."""

    message = (
        'Parser key "reasoner":\n  Does not validate against any of the Union subtypes\n'
        f"  Subtypes: [<class '{HERE}.Reasoner'>, <class 'NoneType'>]\n  Errors:\n"
        "    - Expected a dot import path string: TinyReasonr\n    - Expected a <class 'NoneType'>"
    )
    assert one_line(message, KEYS) == "reasoner: there is no class `TinyReasonr`; did you mean `TinyReasoner`?"


def test_nothing_similar_gives_no_suggestion() -> None:
    assert suggestion("zzz", ["trainer.devices"]) == ""
    assert suggestion("model.beta", ["model.grpo.beta", "model.lr"]) == "; did you mean `model.grpo.beta`?"
