from pathlib import Path

ROOT = Path(__file__).parents[4]


def test_what_learns_and_scores_never_reads_the_truth():
    """Neither the file nor its reader is named where prompts, rewards, rollouts, metrics and readers live."""
    sources = [path for folder in ("grpo", "rewards", "metrics") for path in (ROOT / folder).rglob("*.py")]
    sources += list((ROOT / "datamodules").glob("*.py"))
    sources += list((ROOT / "models").glob("*.py"))
    assert len(sources) > 5

    assert [path.name for path in sources if "truth.jsonl" in path.read_text(encoding="utf-8")] == []
    assert [path.name for path in sources if "avshapes.truth" in path.read_text(encoding="utf-8")] == []
