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

Both go on where they were stopped. Written after each of the two into the folder of the runs, and when both are whole
(no `--quick`, all variants, none of which failed, and all answers) also to `docs/results_keyframes.md` and
`benchmarks/results/keyframe_value.json`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import baselines
import frame_tables
import one_system
import other_frames
from one_system import VARIANTS
from outcomes import Outcome, by_code, finished, made_by, read_outcome, results_of
from rows import places, weights_flags
from side_by_side import ROOT, leave_if_failed, remember, remember_configurations, run_jobs, weights_digest
from table_options import differences, fill_in, made_with, say_if_less, table_parser, usual_or_beside

RUNS = "keyframes"
"""Folder of the runs, unless another is named."""

DIGITS = 5
"""Of the J&F of single clips where they are written down."""

ANSWERED = ("base", "rk_ra_rg")
"""Rows of `benchmarks/baselines.py` whose frames are replaced unless other runs are named."""


def usual_answers(quick: bool, seeds: Sequence[int]) -> list[Path]:
    """The folders of these rows, with the seeds that the table of these seeds runs them with."""
    folder = ROOT / "runs" / (f"{baselines.RUNS}_quick" if quick else baselines.RUNS)
    rows = [row for row in baselines.ROWS if row.name in ANSWERED]
    return [path for paths in places(rows, seeds, folder).values() for path in paths]


def parse(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """Options with their defaults filled in, and flags that are passed on to every training.

    Raises:
        SystemExit: Two of the answers would have one name.
    """
    names = [one.name for one in VARIANTS]
    parser = table_parser(
        (__doc__ or "").splitlines()[0],
        runs=RUNS,
        prompts="training prompts",
        clips="as the answers were tested with, see baselines.py; the trained variants are tested on twice as many",
    )
    parser.add_argument("--variants", nargs="*", choices=names, default=names, help="default: all; none leaves it out")
    parser.add_argument(
        "--answers",
        nargs="*",
        type=Path,
        help="folders of finished runs whose frames are replaced (default: those of runs/baselines without training and"
        " with all rewards, as far as they are finished; no folder leaves this part out)",
    )
    parser.add_argument("--videos", type=int, default=300, help="training videos with 20 frames")
    parser.add_argument("--cache", type=Path, help="where generated clips go (default: the user's cache)")
    parser.add_argument(
        "--avshapes-sizes",
        type=json.loads,
        default={},
        help="JSON of the sizes by benchmark that the answered clips were made with",
    )
    parser.add_argument("--page", type=Path, help="default: docs/results_keyframes.md, of a part in the folder")
    parser.add_argument("--json", type=Path, help="default: benchmarks/results/keyframe_value.json, likewise")
    options, extra = parser.parse_known_args(arguments)
    fill_in(options, RUNS)
    answers = usual_answers(options.quick, options.seeds) if options.answers is None else options.answers
    options.answers = [folder.resolve() for folder in answers]
    other_frames.refuse_equal_names(options.answers)
    return options, extra


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is left, write and print.

    Raises:
        SystemExit: Answers are about other clips, before anything runs; or some jobs failed, and what is finished is
            written all the same.
    """
    options, extra = parse(arguments)
    less = differences(options, parse([])[0], extra)
    page = Page(options, made_with("keyframe_value.py", arguments, options))
    answers = {folder.name: read_outcome(folder) for folder in options.answers if results_of(folder) is not None}
    if missing := [str(folder) for folder in options.answers if folder.name not in answers]:
        names = ", ".join(missing)
        print(f"not finished, so their frames are not replaced: {names}. Make them, or name others with --answers")
        less += [f"{folder} is not finished" for folder in missing]
    drawn = other_frames.Drawn(options.clips, options.weights, options.cache, options.avshapes_sizes)
    if answers:
        other_frames.refuse_other_clips(answers, drawn)
    failed = add_compute(page, options, extra) if options.variants else []
    less += [f"{name} failed" for name in failed]
    if answers:
        add_frames(page, answers, drawn, options)
    if not less:
        page.write(is_whole=True)
    print(page.text)
    say_if_less(less)
    leave_if_failed(failed, options.folder)


class Page:
    """What is written, after each part into the folder of the runs, and in the end to its own place.

    Attributes:
        numbers: By part.
    """

    def __init__(self, options: argparse.Namespace, source: Mapping[str, str]) -> None:
        """Begin with nothing.

        Args:
            options: Which files were asked for, and the folder of the runs.
            source: Where the numbers come from.
        """
        self._options, self._source = options, dict(source)
        self._parts = ["# Keyframes and compute"]
        self.numbers: dict[str, Any] = {}

    @property
    def text(self) -> str:
        """The page so far."""
        return "\n\n".join([*self._parts, "\n".join(f"- {name}: {value}" for name, value in self._source.items())])

    def add(self, name: str, parts: Sequence[str], numbers: object, source: Mapping[str, str]) -> None:
        """Add a part and write.

        Args:
            name: Of its numbers.
            parts: Paragraphs.
            numbers: What JSON can hold.
            source: Which code trained, tested and measured.
        """
        self._parts += parts
        self.numbers[name] = numbers
        self._source |= source
        self.write(is_whole=False)

    def write(self, *, is_whole: bool) -> None:
        """Write page and numbers.

        Args:
            is_whole: Whether both parts are there, at their full size.
        """
        folder, usual = self._options.folder, "benchmarks/results/keyframe_value.json"
        page = usual_or_beside(self._options.page, "docs/results_keyframes.md", folder, is_whole=is_whole)
        file = usual_or_beside(self._options.json, usual, folder, is_whole=is_whole)
        for path, content in ((page, self.text), (file, json.dumps({"provenance": self._source} | self.numbers))):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content + "\n")
        print(f"written to {page} and {file}")


def add_compute(page: Page, options: argparse.Namespace, extra: Sequence[str]) -> list[str]:
    """Train and test the variants, and add what is finished to the page.

    Returns:
        Names of the jobs that failed.
    """
    flags = [*weights_flags(options.weights), *extra]
    kept = {"prompts": options.prompts, "clips": options.clips, "videos": options.videos, "extra": extra}
    root = one_system.long_clips(options.videos, options.cache)
    chosen = [one for one in VARIANTS if one.name in options.variants]
    jobs = one_system.make_jobs(
        chosen, options.seeds, root, prompts=options.prompts, clips=2 * options.clips, extra=flags
    )
    remember(options.folder, kept | {"weights": weights_digest(options.weights)})
    remember_configurations(jobs, options.folder)
    failed = run_jobs(jobs, options.folder, processes=options.processes)
    folders = places(chosen, options.seeds, options.folder)
    table = finished(folders)
    if table:
        text, numbers = one_system.compute_table(table, folders, root, options.weights)
        parts = ["## The same compute for one system", one_system.EXPLAINED, text]
        missing = [one.title for one in chosen if one.name not in table]
        parts += [f"Not finished: {'; '.join(missing)}."] if missing else []
        page.add("compute", parts, numbers, one_system.compute_codes(table, numbers))
    return failed


def add_frames(
    page: Page, answers: Mapping[str, Outcome], drawn: other_frames.Drawn, options: argparse.Namespace
) -> None:
    """Replace the frames of finished answers, and add what comes out to the page.

    Args:
        page: What is written.
        answers: By the name of the run.
        drawn: The clips that they are about.
        options: Where measured values are kept, and how many runs go side by side.
    """
    found = other_frames.measure_all(answers, options.folder, drawn, processes=options.processes)
    values = {name: one.values for name, one in found.items()}
    clips = [clip for clip, _ in other_frames.measured_clips(drawn.data())]
    choices = {name: frame_tables.choices_of(outcome.texts, clips) for name, outcome in answers.items()}
    saliency = {name: frame_tables.saliency_of(outcome.texts, clips) for name, outcome in answers.items()}
    parts = ["## What other keyframes would have given", frame_tables.EXPLAINED, frame_tables.frame_tables(values)]
    named = frame_tables.choice_table(choices, saliency)
    parts += ["### Which frames are named", frame_tables.CHOICES_EXPLAINED, named]
    answered: dict[str, list[str]] = {}
    measured: dict[str, list[str]] = {}
    for name, outcome in answers.items():
        answered.setdefault(frame_tables.title_of(name), []).append(made_by(outcome))
        measured.setdefault(frame_tables.title_of(name), []).append(" and ".join(found[name].codes))
    rounded = {name: {clip: _rounded(jf) for clip, jf in of_run.items()} for name, of_run in values.items()}
    source = {"commit of answers": by_code(answered), "frames measured by": by_code(measured)}
    page.add("frames", parts, {"jf": rounded, "choices": choices, "saliency": saliency}, source)


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, DIGITS) for name, value in values.items()}


if __name__ == "__main__":
    main()
