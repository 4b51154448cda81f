"""How fast the scorer is on predictions in the layout of ReVOS, beside a plain NumPy and scikit-image program.

    python benchmarks/scorer_speed.py
    python benchmarks/scorer_speed.py --expressions 20

A ground truth and predictions (PNG) are made in a temporary folder: blobs that move, with ragged rims, several per
expression. First the whole set is scored by `metrics.score` on all cores, tables and files included. Then single
expressions are scored in this one process, by the scorer and by the plain program in turn, which must agree to 1e-9.
The plain program does per frame what the formulas say, boundaries dilated by scikit-image: by a disk, which is how the
definition puts it, and by a distance transform, which is faster. Needs `pip install -e ".[bench]"`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from PIL import Image
from pycocotools import mask as coco
from skimage.morphology import dilation, disk, isotropic_dilation

from metrics.score.__main__ import score
from metrics.score.plan import make_plan
from metrics.score.videos import VideoJob, score_expression

PER_VIDEO = 10
OBJECTS = 4


def main() -> None:
    """Make the data, time both, print."""
    options = parse()
    with tempfile.TemporaryDirectory() as place:
        root, predictions = Path(place) / "revos", Path(place) / "predictions"
        size = (options.height, options.width)
        write_set(root, predictions, options.expressions, options.frames, size)
        files = len(list(predictions.rglob("*.png")))
        print(f"{options.expressions} expressions, {options.frames} frames, {size[0]}x{size[1]}, {files} files")

        started = time.perf_counter()
        report = score("revos", root, predictions, workers=options.workers)
        seconds = time.perf_counter() - started
        workers = options.workers or joblib.cpu_count()
        print(f"whole set, {workers} processes: {seconds:.1f} s, {options.expressions / seconds:.2f} expressions/s")
        print(f"J&F of the set {100 * report.scores['overall/JF']:.2f}")

        jobs = make_plan("revos", root, predictions).jobs
        chosen = [jobs[index] for index in np.linspace(0, len(jobs) - 1, options.compared).round().astype(int)]
        compare(chosen, {"disk": PlainProgram(root, by_disk), "distance": PlainProgram(root, isotropic_dilation)})


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--expressions", type=int, default=200)
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--width", type=int, default=854)
    parser.add_argument("--workers", type=int, help="processes for the whole set (default: one per core)")
    parser.add_argument("--compared", type=int, default=10, help="expressions that the plain program scores too")
    return parser.parse_args()


def compare(jobs: list[VideoJob], programs: dict[str, PlainProgram]) -> None:
    """Score expressions by all in turn, in this process, and print processor seconds."""
    spent: dict[str, list[float]] = {name: [] for name in ("metrics.score", *programs)}
    for job in jobs:
        answer, seconds = timed(lambda job=job: score_expression(job))
        spent["metrics.score"].append(seconds)
        found = np.array([answer.parts.j, answer.parts.f, answer.parts.a_official, answer.parts.r_official])
        for name, program in programs.items():
            expected, seconds = timed(lambda job=job, program=program: program.score(job))
            spent[name].append(seconds)
            if np.abs(found - expected).max() > 1e-9:
                raise SystemExit(f"{job.name}: {found} and {expected} differ")
    frames = len(jobs[0].video.frames)
    print(f"one core, {len(jobs)} expressions in turn, processor seconds per expression (median):")
    for name, seconds in spent.items():
        ratios = sorted(other / own for own, other in zip(spent["metrics.score"], seconds, strict=True))
        middle = statistics.median(seconds)
        print(
            f"  {name:14s} {middle:8.3f} s {1000 * middle / frames:8.2f} ms per frame,"
            f" {statistics.median(ratios):5.1f} times ours ({ratios[0]:.1f} to {ratios[-1]:.1f})"
        )


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What came out, and processor seconds: other programs on the machine do not count."""
    started = time.process_time()
    result = work()
    return result, time.process_time() - started


class PlainProgram:
    """The formulas of ReVOS as one would write them down, with all tables in memory."""

    def __init__(self, root: Path, dilated: Callable[[np.ndarray, int], np.ndarray]) -> None:
        """Read the tables.

        Args:
            root: Folder of the benchmark.
            dilated: Dilates a mask by a disk of a radius.
        """
        self.dilated = dilated
        self.masks = json.loads((root / "mask_dict.json").read_text())
        self.foreground = json.loads((root / "mask_dict_foreground.json").read_text())

    def score(self, job: VideoJob) -> tuple[float, ...]:
        """J, F, A and R of one expression."""
        rows = []
        for index, frame in enumerate(job.video.frames):
            path = job.predictions / job.video.name / job.question.id / f"{frame}.png"
            pred = np.array(Image.open(path))
            truth = np.zeros(pred.shape, dtype=np.uint8)
            for name in job.question.annotations or ():
                rle = self.masks[name][index]
                if rle:
                    truth += coco.decode(rle)
            annotated = coco.decode(self.foreground[job.video.name]["masks_rle"][index])
            rows.append((*self.jf(pred > 0, truth > 0), *plain_ar(pred, truth, annotated)))
        return tuple(np.mean(rows, axis=0).tolist())

    def jf(self, pred: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
        """J and F of one frame."""
        union = (pred | truth).sum()
        j = (pred & truth).sum() / union if union else 1.0
        radius = int(np.ceil(0.008 * np.hypot(*pred.shape)))
        one, other = boundary(pred), boundary(truth)
        if not one.any() or not other.any():
            return float(j), float(one.any() == other.any())
        precision = (one & self.dilated(other, radius)).sum() / one.sum()
        recall = (other & self.dilated(one, radius)).sum() / other.sum()
        return float(j), float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


def boundary(mask: np.ndarray) -> np.ndarray:
    """Pixels that differ from the right, lower or lower right neighbor."""
    right, below, diagonal = mask.copy(), mask.copy(), mask.copy()
    right[:, :-1], below[:-1], diagonal[:-1, :-1] = mask[:, 1:], mask[1:], mask[1:, 1:]
    edge = (mask != right) | (mask != below) | (mask != diagonal)
    edge[-1], edge[:, -1] = (mask != right)[-1], (mask != below)[:, -1]
    return edge


def by_disk(mask: np.ndarray, radius: int) -> np.ndarray:
    """Dilation by a disk."""
    return dilation(mask, disk(radius, dtype=bool))


def plain_ar(pred: np.ndarray, truth: np.ndarray, annotated: np.ndarray) -> tuple[float, float]:
    """A and R of one frame on stored values."""
    wrong = ((np.uint8(1) - truth) * pred).sum()
    return float(np.mean(pred == truth)), float(max(1 - wrong / (annotated.sum() + 1e-6), 0.0))


def write_set(root: Path, predictions: Path, expressions: int, frames: int, size: tuple[int, int]) -> None:
    """Write tables, masks and predictions of videos with up to ten expressions each."""
    videos: dict[str, Any] = {}
    masks: dict[str, Any] = {}
    foreground: dict[str, Any] = {}
    for number in range(-(-expressions // PER_VIDEO)):
        name = f"set/video{number:03d}"
        rng = np.random.default_rng(number)
        objects = [moving_blob(rng, frames, size) for _ in range(OBJECTS)]
        masks |= {str(10 * number + key): [encoded(mask) for mask in track] for key, track in enumerate(objects)}
        foreground[name] = {"masks_rle": [encoded(np.any(frame, axis=0)) for frame in zip(*objects, strict=True)]}
        asked = {}
        for key in range(min(PER_VIDEO, expressions - PER_VIDEO * number)):
            targets = rng.permutation(OBJECTS)[: 1 + key % 2].tolist()
            asked[str(key)] = {
                "exp": "it",
                "obj_id": targets,
                "anno_id": [10 * number + target for target in targets],
                "type_id": key % 2,
            }
            truth = np.any([objects[target] for target in targets], axis=0)
            write_prediction(predictions / name / str(key), np.roll(truth, rng.integers(-6, 7, 2), axis=(1, 2)))
        names = [f"{index:05d}" for index in range(frames)]
        videos[name] = {"vid_id": number, "frames": names, "expressions": asked}
    root.mkdir()
    (root / "meta_expressions_valid_.json").write_text(json.dumps({"videos": videos}))
    (root / "mask_dict.json").write_text(json.dumps(masks))
    (root / "mask_dict_foreground.json").write_text(json.dumps(foreground))


def moving_blob(rng: np.random.Generator, frames: int, size: tuple[int, int]) -> np.ndarray:
    """An object with a wavy, ragged outline that drifts across the picture."""
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float32)
    center, speed = rng.uniform(0.2, 0.8, 2) * size, rng.uniform(-2, 2, 2)
    axes, waves = rng.uniform(0.08, 0.25, 2) * size, int(rng.integers(3, 9))
    ragged = rng.uniform(-0.04, 0.04, size).astype(np.float32)
    out = np.empty((frames, *size), dtype=bool)
    for index in range(frames):
        dy, dx = (y - center[0] - index * speed[0]) / axes[0], (x - center[1] - index * speed[1]) / axes[1]
        out[index] = (dy**2 + dx**2) * (1 + 0.2 * np.sin(waves * np.arctan2(dy, dx))) + ragged < 1
    return out


def encoded(mask: np.ndarray) -> dict[str, Any]:
    """COCO run lengths."""
    found = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": found["counts"].decode("ascii")}


def write_prediction(folder: Path, masks: np.ndarray) -> None:
    """One PNG per frame, 0 and 255."""
    folder.mkdir(parents=True)
    for index, mask in enumerate(masks):
        Image.fromarray(mask.astype(np.uint8) * 255).save(folder / f"{index:05d}.png", compress_level=1)


if __name__ == "__main__":
    main()
