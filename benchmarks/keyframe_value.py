"""What keyframes are worth, and what the compute of two systems would buy for one.

    python benchmarks/keyframe_value.py
    python benchmarks/keyframe_value.py --quick

*Compute.* On ReVOS-like clips of 20 frames, the same prompts train policies of two kinds: two systems (System 1 sees 10
frames and describes, System 2 looks closer), and System 1 alone, which writes where the target is on each keyframe and
spends the compute on more frames, more pixels, or both. Masks are propagated by the same SAM2 for all. Compute is
counted in floating-point operations per clip.

*Frames.* The answers of finished runs (`--answers`; those of `benchmarks/baselines.py` without training and with all
rewards, if they are there) keep their descriptions and get other keyframes: drawn at random, spread evenly, the fullest
by the ground truth (oracle), the first frame alone. The same with true descriptions, so that only the frames differ.
System 2 makes the masks; nothing is trained.

Both go on where they were stopped. Written, after each of the two: `docs/results_keyframes.md` and
`benchmarks/results/keyframe_value.json`. Anything less than the whole (`--quick`, some variants, a variant that failed)
is written into the folder of its runs instead.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import one_system
import other_frames
from baselines import PARTS
from one_system import VARIANTS
from outcomes import Outcome, commits_of, read_outcome, results_of
from side_by_side import (
    ROOT,
    asks_for_all,
    config_digests,
    remember,
    run_jobs,
    usual_or_beside,
    weights_digest,
)
from speed.results import machine


def usual_answers(quick: bool, seeds: Sequence[int]) -> list[Path]:
    """Folders of those runs of `benchmarks/baselines.py` whose frames are replaced unless others are named."""
    folder = ROOT / "runs" / ("baselines_quick" if quick else "baselines")
    return [folder / "base_seed0", *(folder / f"rk_ra_rg_seed{seed}" for seed in seeds)]


def parse(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """Options, and flags that are passed on to every training."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one seed, fewer prompts, fewer test clips")
    parser.add_argument("--seeds", nargs="+", type=int, help="default: 0 1 2, with --quick 0")
    parser.add_argument("--variants", nargs="*", choices=[v.name for v in VARIANTS], default=[v.name for v in VARIANTS])
    parser.add_argument(
        "--answers",
        nargs="*",
        type=Path,
        help="folders of finished runs whose frames are replaced (default: those of runs/baselines without training and"
        " with all rewards, as far as they are finished; no folder leaves this part out)",
    )
    parser.add_argument("--prompts", type=int, help="training prompts (default: 256, with --quick 96)")
    parser.add_argument(
        "--clips",
        type=int,
        help="as the answers were tested with, see baselines.py; the trained variants are tested on twice as many"
        " (default: 120, with --quick 40)",
    )
    parser.add_argument("--videos", type=int, default=300, help="training videos with 20 frames")
    parser.add_argument("--processes", type=int, default=2, help="runs side by side")
    parser.add_argument("--folder", type=Path, help="where the run folders go (default: runs/keyframes or ..._quick)")
    parser.add_argument("--cache", type=Path, help="where generated clips go (default: the user's cache)")
    parser.add_argument(
        "--avshapes-sizes", default="{}", help="JSON of the sizes by benchmark that the answered clips were made with"
    )
    parser.add_argument("--page", type=Path, help="default: docs/results_keyframes.md, of a part in the folder")
    parser.add_argument("--json", type=Path, help="default: benchmarks/results/keyframe_value.json, likewise")
    parser.add_argument("--weights", type=Path, default=ROOT / "weights" / "tiny")
    return parser.parse_known_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is left, write and print.

    Raises:
        SystemExit: Some jobs failed; what is finished is written all the same.
    """
    options, extra = parse(arguments)
    is_default = not extra and asks_for_all(options, parse([])[0])
    seeds = options.seeds or ([0] if options.quick else [0, 1, 2])
    options.prompts = options.prompts or (96 if options.quick else 256)
    options.clips = options.clips or (40 if options.quick else 120)
    options.weights = options.weights.resolve()
    folder = (options.folder or ROOT / "runs" / ("keyframes_quick" if options.quick else "keyframes")).resolve()
    source = {
        "command": " ".join(["python", "benchmarks/keyframe_value.py", *(arguments or sys.argv[1:])]),
        "machine": f"{machine()}, {options.processes} runs side by side",
        "weights": weights_digest(options.weights),
    }
    page = Page(options, folder, source)
    failed = add_compute(page, options, folder, seeds, extra) if options.variants else []
    wanted = usual_answers(options.quick, seeds) if options.answers is None else options.answers
    answers = [folder for folder in wanted if results_of(folder) is not None]
    if len(answers) < len(wanted):
        missing = ", ".join(str(folder) for folder in wanted if folder not in answers)
        print(f"not finished, so their frames are not replaced: {missing}. Make them, or name others with --answers")
    if answers:
        add_frames(page, answers, options, folder)
    if is_default and answers == wanted and not failed:
        page.write(is_whole=True)
    print(page.text)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}. Their logs are in {folder}; the same command runs them again.")


class Page:
    """What is written, after each part into the folder of the runs, and in the end to its own place.

    Attributes:
        numbers: By part.
    """

    def __init__(self, options: argparse.Namespace, folder: Path, source: Mapping[str, str]) -> None:
        """Begin with nothing.

        Args:
            options: Which files were asked for.
            folder: Of the runs.
            source: Where the numbers come from.
        """
        self._options, self._folder, self._source = options, folder, dict(source)
        self._parts = ["# Keyframes and compute"]
        self.numbers: dict[str, Any] = {}

    @property
    def text(self) -> str:
        """The page so far."""
        return "\n\n".join([*self._parts, "\n".join(f"- {name}: {value}" for name, value in self._source.items())])

    def add(self, name: str, parts: Sequence[str], numbers: object, table: Mapping[str, Sequence[Outcome]]) -> None:
        """Add a part and write.

        Args:
            name: Of its numbers.
            parts: Paragraphs.
            numbers: What JSON can hold.
            table: The runs that it rests on.
        """
        self._parts += parts
        self.numbers[name] = numbers
        self._source[f"commit of {name}"] = commits_of(table)
        self.write(is_whole=False)

    def write(self, *, is_whole: bool) -> None:
        """Write page and numbers.

        Args:
            is_whole: Whether both parts are there, at their full size.
        """
        page = usual_or_beside(self._options.page, "docs/results_keyframes.md", self._folder, is_whole=is_whole)
        usual = "benchmarks/results/keyframe_value.json"
        file = usual_or_beside(self._options.json, usual, self._folder, is_whole=is_whole)
        for path, content in ((page, self.text), (file, json.dumps({"provenance": self._source} | self.numbers))):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content + "\n")
        print(f"written to {page} and {file}")


def add_compute(
    page: Page, options: argparse.Namespace, folder: Path, seeds: Sequence[int], extra: Sequence[str]
) -> list[str]:
    """Train and test the variants, and add what is finished to the page.

    Returns:
        Names of the jobs that failed.
    """
    flags = [*(f"--model.{part}.path={options.weights / part}" for part in PARTS), *extra]
    kept = {"prompts": options.prompts, "clips": options.clips, "videos": options.videos, "extra": flags}
    root = one_system.long_clips(options.videos, options.cache)
    jobs = one_system.make_jobs(options, root, seeds, flags)
    remember(folder, kept | {"weights": weights_digest(options.weights)} | config_digests(jobs))
    failed = run_jobs(jobs, folder, processes=options.processes)
    chosen = [one for one in VARIANTS if one.name in options.variants]
    places = {one.name: [folder / f"{one.name}_seed{seed}" for seed in one.seeds(seeds)] for one in chosen}
    table = {name: [read_outcome(one) for one in own] for name, own in places.items() if all(map(results_of, own))}
    if table:
        text, numbers = one_system.compute_table(table, folder, root, options.weights, seeds)
        parts = ["## The same compute for one system", one_system.EXPLAINED, text]
        missing = [one.title for one in chosen if one.name not in table]
        parts += [f"Not finished: {'; '.join(missing)}."] if missing else []
        page.add("compute", parts, numbers, table)
    return failed


def add_frames(page: Page, answers: Sequence[Path], options: argparse.Namespace, folder: Path) -> None:
    """Replace the frames of finished answers, and add what comes out to the page."""
    drawn = other_frames.Drawn(options.clips, options.weights, options.cache, json.loads(options.avshapes_sizes))
    found = other_frames.measure_all(answers, folder, drawn, processes=options.processes)
    parts = ["## What other keyframes would have given", other_frames.EXPLAINED, other_frames.frame_tables(found)]
    page.add("frames", parts, found, {path.name: [read_outcome(path)] for path in answers})


if __name__ == "__main__":
    main()
