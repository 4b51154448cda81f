"""Rules that keep the code base readable, checked on the files themselves.

Style inside a file (types, docstrings, complexity) is the linter's work; what is checked here it does not know.
"""

import ast
import builtins
import dis
import re
import sys
import tokenize
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from types import CodeType

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("callbacks", "datamodules", "grpo", "lightning_modules", "metrics", "models", "rewards")
MAX_LINES = 300

MAY_IMPORT = {
    "datamodules": {"datamodules"},
    "rewards": {"rewards", "datamodules"},
    "metrics": {"metrics", "datamodules"},
    "models": {"models", "datamodules"},
    "grpo": {"grpo", "models", "datamodules"},
    "lightning_modules": {"lightning_modules", "grpo", "models", "rewards", "metrics", "datamodules"},
    "callbacks": {"callbacks", "lightning_modules", "grpo", "models", "rewards", "metrics", "datamodules"},
}
"""Which of our packages a package may import; what is used by many imports little."""

RECORDS = {
    "datamodules/records.py": {"datamodules.masks", "datamodules.thinning"},
    "datamodules/errors.py": set(),
    "datamodules/masks.py": set(),
    "datamodules/needs.py": set(),
    "datamodules/thinning.py": set(),
}
"""Records cross every border, so they may import nothing but each other and what imports nothing itself."""

ONLY_RECORDS = {"rewards", "metrics", "models", "grpo"}
"""Packages that may take records and errors from `datamodules`, but no reader."""
RECORD_MODULES = {"datamodules.records", "datamodules.errors", "datamodules.masks", "datamodules.needs"}

PROGRAMS = ("models/tiny/", "metrics/score/")
"""Commands that read data themselves; nothing else in their packages may import them."""

WITHOUT_LIGHTNING = ("grpo", "rewards", "models", "metrics")

SWALLOWED = re.compile(r"\bexcept(?: Exception| BaseException)?:|\bexcept \(?(?:Base)?Exception\b")
BARE = re.compile(r"# type: ignore(?!\[)|# noqa(?!: [A-Z])")
LATER = re.compile(r"\b(?:TODO|FIXME|XXX)\b")
HOME = re.compile(r"(?<![\w./-])/(?:home|root|Users|tmp)/\w")
"""A path that exists on the machine of one person."""


def sources() -> list[Path]:
    return sorted([ROOT / "train.py", *(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))])


def own_files() -> list[Path]:
    """Every text file that is part of the project, by ending or without one."""
    folders = [ROOT / name for name in ("tests", "docs", "configs", "scripts", "benchmarks", ".ci")]
    written = [path for folder in folders for path in folder.rglob("*") if path.suffix in {".py", ".md", ".yaml", ""}]
    texts = [path for path in written if path.is_file()]
    settings = [ROOT / file for file in ("pyproject.toml", "Makefile", ".gitignore")]
    return sorted([*sources(), *texts, *ROOT.glob("*.md"), *settings])


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path) -> Iterator[str]:
    """Dotted names of all modules that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def our_imports(path: Path) -> set[str]:
    return {module for module in imports(path) if module.partition(".")[0] in PACKAGES}


@pytest.mark.parametrize("path", [*sources(), *sorted((ROOT / "tests").rglob("*.py"))], ids=name)
def test_no_file_is_longer_than_a_person_reads_in_one_go(path: Path) -> None:
    assert len(path.read_text().splitlines()) < MAX_LINES


@pytest.mark.parametrize("path", [*sources(), *sorted((ROOT / "tests").rglob("*.py"))], ids=name)
def test_every_name_is_defined(path: Path) -> None:
    """The linter cannot look for it: axis words of array types look like undefined names to it."""
    codes = [compile(path.read_text(), path.name, "exec")]
    known, used = {*dir(builtins), "__file__", "__annotations__"}, set()
    for code in codes:
        codes += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
        for step in dis.get_instructions(code):
            # Names that a class body stores count as known as well, which is more than Python allows.
            known |= {step.argval} if step.opname in ("STORE_NAME", "STORE_GLOBAL") else set()
            used |= {step.argval} if step.opname in ("LOAD_NAME", "LOAD_GLOBAL") else set()
    assert used <= known


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_only_what_lies_below_them(package: str) -> None:
    wrong = {
        (name(path), module)
        for path in (ROOT / package).rglob("*.py")
        for module in our_imports(path)
        if module.partition(".")[0] not in MAY_IMPORT[package]
    }
    assert not wrong


@pytest.mark.parametrize("file", RECORDS)
def test_records_import_nothing_of_ours(file: str) -> None:
    modules = {module for module in our_imports(ROOT / file) if (ROOT / f"{module.replace('.', '/')}.py").exists()}
    assert modules <= RECORDS[file]


@pytest.mark.parametrize("package", sorted(ONLY_RECORDS))
def test_what_computes_knows_records_and_no_reader(package: str) -> None:
    wrong = {
        (name(path), module)
        for path in (ROOT / package).rglob("*.py")
        for module in our_imports(path)
        if module.startswith("datamodules.") and not any(module.startswith(allowed) for allowed in RECORD_MODULES)
    }
    assert not {(file, module) for file, module in wrong if not file.startswith(PROGRAMS)}


def test_the_scorer_is_used_by_no_other_code() -> None:
    """It stands on readers and metrics, and neither may stand on it."""
    users = {name(path) for path in sources() for module in our_imports(path) if module.startswith("metrics.score.")}
    assert {user for user in users if not user.startswith("metrics/score/")} == set()


@pytest.mark.parametrize("package", WITHOUT_LIGHTNING)
def test_what_computes_does_not_know_lightning(package: str) -> None:
    roots = {"lightning", "pytorch_lightning"}
    wrong = {(name(p), m) for p in (ROOT / package).rglob("*.py") for m in imports(p) if m.partition(".")[0] in roots}
    assert not wrong


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_a_package_runs_nothing(package: str) -> None:
    for path in (ROOT / package).rglob("__init__.py"):
        body = ast.parse(path.read_text()).body
        rest = body[1:] if body and isinstance(body[0], ast.Expr) else body
        assert not rest, f"{name(path)} holds more than a docstring"


def test_test_files_have_names_of_their_own() -> None:
    """Pytest imports them by their bare names, so a second one of a name would hide the first."""
    names = [path.name for path in (ROOT / "tests").rglob("*.py") if path.name != "conftest.py"]
    assert sorted(names) == sorted(set(names))


def test_the_entry_point_stays_small() -> None:
    assert len((ROOT / "train.py").read_text().splitlines()) < 80


def comments(path: Path) -> Iterator[tuple[int, str]]:
    with tokenize.open(path) as file:
        for token in tokenize.generate_tokens(file.readline):
            if token.type == tokenize.COMMENT:
                yield token.start[0], token.string


def test_nothing_is_left_for_later_and_no_fault_is_swallowed() -> None:
    files = [path for path in [*sources(), *(ROOT / "tests").rglob("*.py")] if path != Path(__file__)]
    left = [
        f"{name(path)}:{number} {text}"
        for path in files
        for number, text in comments(path)
        if BARE.search(text) or LATER.search(text)
    ]
    swallowed = [
        f"{name(path)}:{number}"
        for path in files
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if SWALLOWED.search(line)
    ]
    assert not left
    assert not swallowed


def test_no_file_names_a_place_on_one_machine() -> None:
    """The pattern itself names none, so this file is looked at like all others."""
    assert HOME.search("see /" + "home/ann/data")
    assert not HOME.search("configs/home/x")
    found = [
        f"{name(path)}:{number}"
        for path in own_files()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if HOME.search(line)
    ]
    assert not found


def test_what_is_imported_is_declared() -> None:
    """A package that only comes along with another one is gone as soon as that one drops it."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    names = {re.split(r"[\[<>=~!; ]", line)[0].lower().replace("_", "-") for line in declared}
    origin = packages_distributions()
    roots = {module.partition(".")[0] for path in sources() for module in imports(path)}
    foreign = roots - sys.stdlib_module_names - {*PACKAGES, "train"}
    assert {root for root in foreign if not {one.lower().replace("_", "-") for one in origin[root]} & names} == set()


def test_files_that_code_reads_are_installed_with_it() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    listed = {name(path) for package, ends in declared.items() for end in ends for path in _folder(package).glob(end)}
    there = {path for package in PACKAGES for path in (ROOT / package).rglob("*.*") if path.is_file()}
    assert listed == {name(path) for path in there if path.suffix not in {".py", ".pyc"}}


def _folder(package: str) -> Path:
    return ROOT / package.replace(".", "/")


def test_programs_name_the_extra_that_they_need() -> None:
    """Every extra is used by somebody, and a benchmark that imports from one says which."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(extras) == {"test", "bench", "docs"}
    modules = {re.split(r"[><=\[]", line)[0].replace("scikit-image", "skimage") for line in extras["bench"]}
    for path in sorted((ROOT / "benchmarks").glob("*.py")):
        needs = {module.partition(".")[0] for module in imports(path)} & modules
        assert not needs or '".[bench]"' in path.read_text(), f"{name(path)} imports {needs}"


def test_packages_are_declared() -> None:
    declared = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    there = {
        path.parent.relative_to(ROOT).as_posix().replace("/", ".")
        for package in PACKAGES
        for path in (ROOT / package).rglob("__init__.py")
    }
    with_code = {
        path.parent.relative_to(ROOT).as_posix().replace("/", ".")
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
    }
    assert declared == there == with_code
