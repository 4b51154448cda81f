"""Rows of a table of trainings, and what makes jobs of them: names, seeds, and the flags that all of them share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

GRPO = "configs/baselines/grpo.yaml"
SFT = "configs/baselines/sft.yaml"

QUIET = ("--trainer.limit_val_batches=0", "--trainer.num_sanity_val_steps=0", "--overlays.clips=0")
"""Flags of a training that looks at no held-out clip and draws nothing."""

TESTED = ("--data.val_batch_size=16", "--overlays.clips=0")
"""Flags of a test that shows nothing but numbers."""


@dataclass(frozen=True)
class Row:
    """One way of training.

    Attributes:
        name: Of its folders.
        title: What the table calls it.
        configs: Configuration files, later ones win.
        trains: Whether there is anything to train.
    """

    name: str
    title: str
    configs: tuple[str, ...]
    trains: bool = True

    def seeds(self, seeds: Sequence[int]) -> Sequence[int]:
        """Those of some seeds that it is run with: without training one says all."""
        return seeds if self.trains else seeds[:1]

    def sampling_flags(self, seed: int) -> list[str]:
        """The seed of the noise that a training samples with; supervised training samples nothing."""
        return [f"--model.sampling.seed={seed}"] if self.configs[0] == GRPO else []


AnyRow = TypeVar("AnyRow", bound=Row)


def seed_flags(seed: int) -> list[str]:
    """The seeds of weights and drawn prompts."""
    return [f"--seed_everything={seed}", f"--data.seed={seed}"]


def drawn_flags(clips: int) -> list[str]:
    """At most so many test clips of each split; data modules draw them alike for every seed."""
    return [f"--data.test_size={clips}"]


def weights_flags(weights: Path) -> list[str]:
    """Where the weights of all three models are, in one folder."""
    return [f"--model.{part}.path={weights / part}" for part in ("reasoner", "grounder", "propagator")]


def with_seeds(rows: Sequence[AnyRow], seeds: Sequence[int]) -> Iterator[tuple[AnyRow, int]]:
    """Every row with its seeds, the first seed of every row first."""
    yield from ((row, seed) for seed in seeds for row in rows if seed in row.seeds(seeds))


def job_name(row: str, seed: int) -> str:
    """The folder of a row with one seed."""
    return f"{row}_seed{seed}"


def row_of(job: str) -> str:
    """The row in the name of a job; any other name is a row of its own."""
    return job.rpartition("_seed")[0] or job


def places(rows: Sequence[Row], seeds: Sequence[int], folder: Path) -> Mapping[str, list[Path]]:
    """The folders of every row's jobs, by row."""
    return {row.name: [folder / job_name(row.name, seed) for seed in row.seeds(seeds)] for row in rows}
