"""`--seed_everything` is the seed of the whole run, and the held-out clips are not part of it."""

from collections.abc import Callable, Sequence
from pathlib import Path

import cli_doubles
import yaml

Command = Callable[[Sequence[str]], int]
ONE_STEP = ["--trainer.max_steps=1", "--data.val_size=2", "--rewards.remember=cli_doubles.Remember"]


def first_step(
    command: Command, fast: list[str], runs: Path, *flags: str
) -> tuple[list[str], list[tuple[str, tuple[int, ...]]], dict[str, int | None]]:
    """Held-out clips, the first group of training, and the seeds that were saved."""
    cli_doubles.Remember.seen.clear()
    line = ["fit", *fast, *ONE_STEP, f"--trainer.logger.save_dir={runs}", *flags]
    assert command(line) == 0
    saved = yaml.safe_load((runs / "debug_fast" / "version_0" / "config.yaml").read_text())
    model, data = saved["model"]["init_args"], saved["data"]["init_args"]
    seeds = {"run": saved["seed_everything"], "sampling": model["sampling"]["seed"], "data": data["seed"]}
    groups = list(cli_doubles.Remember.seen)
    held_out = [group[0][0] for group in groups if len(group) == 1]
    return held_out, next(group for group in groups if len(group) > 1), seeds


def test_another_seed_is_another_run_on_the_same_held_out_clips(
    command: Command, fast: list[str], tmp_path: Path
) -> None:
    """The first prompt is the same in both (one order of the data), and its completions are not."""
    runs = [
        first_step(command, fast, tmp_path / str(seed), f"--seed_everything={seed}", "--data.seed=5") for seed in (0, 1)
    ]
    (held_out, group, seeds), (other_held_out, other_group, other_seeds) = runs
    assert held_out == other_held_out
    assert len(set(held_out)) == 2
    assert [clip for clip, _ in group] == [clip for clip, _ in other_group]
    assert [ids for _, ids in group] != [ids for _, ids in other_group]
    assert (seeds, other_seeds) == (
        {"run": 0, "sampling": 0, "data": 5},
        {"run": 1, "sampling": 1, "data": 5},
    )


def test_the_order_of_the_prompts_follows_too(command: Command, fast: list[str], tmp_path: Path) -> None:
    _, _, seeds = first_step(command, fast, tmp_path / "runs", "--seed_everything=3", "--model.sampling.seed=4")
    assert seeds == {"run": 3, "sampling": 4, "data": 3}
