"""What the documents say can be typed, opened and trusted."""

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from lightning_modules.cli import OmniCLI, run
from train import CALLBACKS

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
HEADER = ("# Purpose: ", "# Command: ", "# Hardware and peak memory: ", "# Wall time: ", "# Expected result: ")
LINK = re.compile(r"!?\[[^\]]*\]\(([^)#\s]+)(?:#([\w-]+))?\)")
FENCE = re.compile(r"```(?:bash|console|sh)\n(.*?)```", re.DOTALL)

# A stand-in for what a reader would fill in.
PLACEHOLDERS = {"FILE", "[--config", "{fit,validate,test,predict}", "my_pkg.MyReward"}


def shell_lines(text: str) -> Iterator[str]:
    """Commands of all shell blocks, continued lines joined, comments dropped."""
    for block in FENCE.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            command = line.split(" #")[0].strip()
            if command and not command.startswith("#"):
                yield command


def train_commands() -> list[tuple[str, str]]:
    """Every complete command of every document that runs `train.py`, by itself or under torchrun."""
    found = [(path.relative_to(ROOT).as_posix(), line) for path in DOCUMENTS for line in shell_lines(path.read_text())]
    return [
        (name, line)
        for name, line in found
        if line.startswith(("python train.py", "torchrun")) and not PLACEHOLDERS & set(shlex.split(line))
    ]


def given(command: list[str]) -> list[str]:
    """What a command gives to `train.py`."""
    assert command[0] in ("python", "torchrun")
    return command[command.index("train.py") + 1 :]


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[OmniCLI]:
    """Parse and build, but run nothing; checkpoints and run folders of examples need not exist."""
    seen: list[OmniCLI] = []
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("sys.argv", ["train.py"])
    monkeypatch.setattr(OmniCLI, "_run_subcommand", lambda self, subcommand: seen.append(self))
    monkeypatch.setattr(OmniCLI, "_refuse_missing_checkpoint", lambda self, parser: None)
    return seen


def on_this_machine(arguments: list[str]) -> list[str]:
    """The same command without the accelerators that it asks for."""
    return [*arguments, "--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.num_nodes=1"]


def stopped_run(folder: Path) -> Path:
    """What a run of the configuration by the folder's name leaves behind when it is stopped, as far as parsing goes."""
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "last.ckpt").touch()
    (config,) = (path for path in CONFIGS if path.stem == folder.parent.name)
    shutil.copy(config, folder / "config.yaml")
    return folder


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_configuration_says_what_it_is_and_its_command_works(path: Path, parsed: list[OmniCLI]) -> None:
    lines = path.read_text().splitlines()[:5]
    assert [line.startswith(start) for line, start in zip(lines, HEADER, strict=True)] == [True] * 5
    command = shlex.split(lines[1].removeprefix("# Command: "))
    is_on_nodes = "num_nodes" in path.read_text()
    assert command[0] == ("torchrun" if is_on_nodes else "python"), "several nodes take a program that starts them"
    assert command[-1] == path.relative_to(ROOT).as_posix(), "the command must end with the file that it describes"
    assert run(on_this_machine(given(command)), callbacks=CALLBACKS) == 0
    assert parsed


@pytest.mark.parametrize(("document", "line"), train_commands())
def test_a_documented_command_parses(document: str, line: str, parsed: list[OmniCLI], tmp_path: Path) -> None:
    arguments = given(shlex.split(line))
    if "--resume" in arguments:
        place = arguments.index("--resume") + 1
        arguments[place] = str(stopped_run(tmp_path / arguments[place]))
    assert run(on_this_machine(arguments), callbacks=CALLBACKS) == 0
    assert parsed


def test_every_document_with_commands_is_seen() -> None:
    documents = {document for document, _ in train_commands()}
    assert {"README.md", "docs/rewards.md"} <= documents


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(path: Path) -> None:
    dead = []
    for target, anchor in LINK.findall(path.read_text()):
        if "://" in target or target.startswith("mailto:"):
            continue
        file = (path.parent / target).resolve()
        if not file.exists() or (anchor and anchor not in anchors(file)):
            dead.append(f"{target}#{anchor}")
    assert not dead


def anchors(document: Path) -> set[str]:
    """Names that headings can be linked by."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_is_in_the_site() -> None:
    """Also those that a benchmark writes: once there is one, it is to be found."""
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    entries = [entry for part in nav for entry in part.values()]
    listed = [page for entry in entries for page in ([entry] if isinstance(entry, str) else entry)]
    assert sorted(listed) == sorted(
        path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")
    )


def test_ci_and_make_run_the_documented_test_command() -> None:
    command = next(
        line for line in shell_lines((ROOT / "README.md").read_text()) if line.startswith("python -m pytest")
    )
    assert command in (ROOT / "Makefile").read_text()
    assert "grep -m1 '^python -m pytest' README.md" in (ROOT / ".ci" / "run").read_text()


def test_every_callback_is_documented() -> None:
    page = (ROOT / "docs" / "command_line.md").read_text()
    assert [key for key in CALLBACKS if f"| `{key}` |" not in page] == []
