import ast
from pathlib import Path

ROOT = Path(__file__).parents[4]
FOLDERS = (
    "benchmarks",
    "callbacks",
    "datamodules",
    "grpo",
    "lightning_modules",
    "metrics",
    "models",
    "rewards",
    "scripts",
)

READERS = {
    "datamodules/avshapes/descriptions.py": "whether a description is right, for checks",
    "datamodules/avshapes/oracle.py": "supervised training on true descriptions, which is labeled as such",
    "scripts/gates.py": "the check of the tiny weights",
}
"""Everything that knows what the truth file holds, beside the writers of the trees."""


def imports(path: Path) -> set[str]:
    """Dotted names of all modules that a file imports from, wherever in the file."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    named = {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    return named | {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}


def users(module: str) -> set[str]:
    sources = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")] + [ROOT / "train.py"]
    assert len(sources) > 100
    return {path.relative_to(ROOT).as_posix() for path in sources if module in imports(path)}


def test_what_learns_and_scores_never_reads_the_truth():
    """Neither the file nor its reader is named where prompts, rewards, rollouts, metrics and readers live."""
    sources = [path for folder in ("grpo", "rewards", "metrics") for path in (ROOT / folder).rglob("*.py")]
    sources += list((ROOT / "datamodules").glob("*.py"))
    sources += list((ROOT / "models").glob("*.py"))
    assert len(sources) > 5

    assert [path.name for path in sources if "truth.jsonl" in path.read_text(encoding="utf-8")] == []
    assert [path.name for path in sources if "avshapes.truth" in path.read_text(encoding="utf-8")] == []


def test_those_who_know_the_truth_are_counted():
    found = {name for name in users("datamodules.avshapes.truth") if "/avshapes/write_" not in name}
    assert found == set(READERS)


def test_true_descriptions_reach_training_by_one_setting():
    """`answers: oracle` of a data module, and nothing else that runs: not prompts, not rewards, not GRPO.

    The other two measure: how good the tiny weights are, and what keyframes are worth when descriptions are right.
    """
    measuring = {"benchmarks/other_frames.py", "scripts/gates.py"}
    assert users("datamodules.avshapes.oracle") == {"datamodules/supervised.py"} | measuring
    assert users("datamodules.supervised") == {"datamodules/base.py", "datamodules/mixture.py"}
