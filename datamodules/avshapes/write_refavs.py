"""Write AVShapes in the layout of Ref-AVS Bench.

    metadata.csv                                columns vid, uid, split, fid, exp; CRLF line ends
    media/<DIR>/frames/0.jpg ... 9.jpg          media/<DIR>/audio.wav
    gt_mask/<DIR>/fid_<FID>/00000.png ...       0 and 255, all black in null folders
    truth.jsonl                                 not part of the layout; see `datamodules.avshapes.truth`

Conventions of the real table that are kept: DIR is the uid without its last two fields; video ids hold `_` and `-` and
some begin with `-`; fids have gaps; null folders are named `null_m-<vid>` (muted) or `null_c-<vid>` (the sound of
another clip) after an ordinary clip whose picture they reuse, and their rows carry that clip's raw vid, category
`null`, fid 0 and no full stop. Not imitated: duplicated uids, label noise, the leftover sixth split.

Reference:
    Ref-AVS, arXiv:2407.10957; the conventions were read from the released metadata table.
"""

from __future__ import annotations

import csv
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soundfile
from jaxtyping import Bool, Float32
from PIL import Image

from datamodules.avshapes.expressions import (
    AudioSource,
    Expression,
    choose_balanced,
    refavs_expressions,
    refavs_null_expressions,
)
from datamodules.avshapes.render import render_frames
from datamodules.avshapes.scene import sample_scene
from datamodules.avshapes.settings import RefavsSizes
from datamodules.avshapes.sound import render_audio, render_silence
from datamodules.avshapes.truth import Truth, describe_sounds, describe_things, make_truth, write_truth
from datamodules.avshapes.world import SHAPES, Scene, Stream, World, generator

COLUMNS = ("vid", "uid", "split", "fid", "exp")
SPLITS = ("train", "val", "test_s", "test_u", "test_n")

_BENCHMARK = 0
_JPEG_QUALITY = 95
_FIDS = 33
_NULL_ROWS = 4
_NULL_SOUND_ROWS = 2
_DONOR_ATTEMPTS = 400
_ID_ALPHABET = string.ascii_letters + string.digits + "_-"
_DASH_FIRST = 0.04


@dataclass(frozen=True)
class RefavsJob:
    """One folder to write.

    Attributes:
        split: The split of its rows.
        picture: The split whose picture is shown; differs from `split` in test_n only.
        index: Which clip of that split.
        is_null: Whether no target is there.
    """

    split: str
    picture: str
    index: int
    is_null: bool


@dataclass(frozen=True)
class RefavsResult:
    """What a written folder adds to the tables: rows of metadata.csv, and the truth of each row."""

    rows: tuple[tuple[str, ...], ...]
    truths: tuple[Truth, ...]


@dataclass(frozen=True)
class _Sounding:
    """What is heard in a clip, and where it comes from."""

    audio: AudioSource
    samples: Float32[np.ndarray, "samples"]
    heard: Scene | None


def refavs_jobs(sizes: RefavsSizes) -> list[RefavsJob]:
    """Every folder of a tree, in the order of the table."""
    jobs = []
    for split, count in (
        ("train", sizes.train),
        ("val", sizes.val),
        ("test_s", sizes.test_s),
        ("test_u", sizes.test_u),
    ):
        jobs += [RefavsJob(split, split, index, is_null=False) for index in range(count)]
    for split, picture, count in (
        ("train", "train", sizes.null_train),
        ("val", "val", sizes.null_val),
        ("test_n", "test_s", sizes.test_n),
    ):
        jobs += [RefavsJob(split, picture, index, is_null=True) for index in range(count)]
    return sorted(jobs, key=lambda job: SPLITS.index(job.split))


def write_refavs_clip(job: RefavsJob, root: Path, *, seed: int, world: World, expressions: int) -> RefavsResult:
    """Write one folder; nothing depends on the folders written before.

    Args:
        job: Which one.
        root: Root of the tree.
        seed: The tree's seed.
        world: The dials.
        expressions: Most rows of an ordinary clip.
    """
    key = (seed, _BENCHMARK, SPLITS.index(job.picture), job.index)
    scene = sample_scene(key, world, unseen=job.picture == "test_u")
    sounding = _mute_or_exchange(scene) if job.is_null else _Sounding("own", render_audio(scene), scene)
    names = generator(key, Stream.NAMES)
    vid = _sample_vid(names)
    fids = [int(fid) for fid in names.choice(_FIDS, size=len(scene.things), replace=False)]
    chosen = _choose(scene, job, sounding.audio, expressions)
    clip = vid if not job.is_null else f"null_{'m' if sounding.audio == 'muted' else 'c'}-{vid}"

    frames, masks = render_frames(scene)
    _write_media(root / "media" / clip, frames, sounding.samples, world.sample_rate)
    for fid, mask in _target_masks(chosen, fids, masks).items():
        _write_masks(root / "gt_mask" / clip / f"fid_{fid}", mask)

    areas = masks.mean(axis=(2, 3))
    things = describe_things(scene, areas, fids)
    truths = tuple(
        make_truth(
            expression,
            split=job.split,
            clip=clip,
            audio=sounding.audio,
            scene=scene,
            things=things,
            sounds=describe_sounds(sounding.heard),
        )
        for expression in chosen
    )
    return RefavsResult(_rows(job.split, vid, clip, scene, fids, chosen), truths)


def finish_refavs(root: Path, results: Sequence[RefavsResult]) -> None:
    """Write the tables once every folder is there."""
    rows = [row for result in results for row in result.rows]
    with (root / "metadata.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\r\n")
        writer.writerow(COLUMNS)
        writer.writerows(rows)
    truths = [truth for result in results for truth in result.truths]
    write_truth(root, (replace(truth, expression_id=str(row)) for row, truth in enumerate(truths)))


def _choose(scene: Scene, job: RefavsJob, audio: AudioSource, expressions: int) -> list[Expression]:
    """The expressions of one folder: balanced over the evidence; null folders mix sounds with looks and motion."""
    rng = generator(scene.key, Stream.TEXT, attempt=int(job.is_null))
    if job.is_null:
        valid = refavs_null_expressions(scene, rng, audio=audio)
        seen = [expression for expression in valid if expression.evidence in ("looks", "motion")]
        heard = [expression for expression in valid if expression.evidence not in ("looks", "motion")]
        chosen = choose_balanced(heard, _NULL_SOUND_ROWS, rng)
        return chosen + choose_balanced(seen, _NULL_ROWS - len(chosen), rng)
    valid = refavs_expressions(scene, rng)
    if job.split == "test_u":
        valid = [expression for expression in valid if scene.things[expression.targets[0]].is_held_out]
    return choose_balanced(valid, expressions, rng)


def _mute_or_exchange(scene: Scene) -> _Sounding:
    """Mute a clip, or give it the sound of a clip whose sounding shapes are all absent from its picture."""
    rng = generator(scene.key, Stream.NAMES, attempt=1)
    present = {thing.shape for thing in scene.things}
    if rng.random() < 2 / 3 and len(present) < len(SHAPES):
        for attempt in range(_DONOR_ATTEMPTS):
            donor = sample_scene((*scene.key, attempt), scene.world)
            heard = {thing.shape for thing in donor.things if thing.sound is not None}
            if heard and not heard & present:
                return _Sounding("exchanged", render_audio(donor), donor)
    return _Sounding("muted", render_silence(scene), None)


def _sample_vid(rng: np.random.Generator) -> str:
    """Eleven characters, then start and end in milliseconds, ten seconds apart."""
    letters = [_ID_ALPHABET[int(index)] for index in rng.integers(len(_ID_ALPHABET), size=11)]
    if rng.random() < _DASH_FIRST:
        letters[0] = "-"
    elif letters[0] == "-":
        letters[0] = "_"
    start = 1000 * int(rng.integers(600))
    return f"{''.join(letters)}_{start}_{start + 10_000}"


def _rows(
    split: str, vid: str, clip: str, scene: Scene, fids: Sequence[int], chosen: Sequence[Expression]
) -> tuple[tuple[str, ...], ...]:
    """Rows of metadata.csv; the number at the end of a uid counts the sentences about its category."""
    counts: Counter[str] = Counter()
    rows = []
    for expression in chosen:
        target = expression.targets[0] if expression.targets else None
        category = "null" if target is None else scene.things[target].shape
        fid = 0 if target is None else fids[target]
        counts[category] += 1
        rows.append((vid, f"{clip}_{category}_{counts[category]}", split, str(fid), expression.text))
    return tuple(rows)


def _target_masks(
    chosen: Sequence[Expression], fids: Sequence[int], masks: Bool[np.ndarray, "frames things height width"]
) -> dict[int, Bool[np.ndarray, "frames height width"]]:
    """The masks of every fid that a row asks for; an empty one under fid 0 where no target is there."""
    found = {}
    for expression in chosen:
        for target in expression.targets:
            found[fids[target]] = masks[:, target]
        if not expression.targets:
            found[0] = np.zeros_like(masks[:, 0])
    return found


def _write_media(folder: Path, frames: np.ndarray, samples: Float32[np.ndarray, "samples"], rate: int) -> None:
    (folder / "frames").mkdir(parents=True)
    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / "frames" / f"{index}.jpg", quality=_JPEG_QUALITY)
    soundfile.write(folder / "audio.wav", np.round(samples * 32767).astype(np.int16), rate, subtype="PCM_16")


def _write_masks(folder: Path, masks: Bool[np.ndarray, "frames height width"]) -> None:
    folder.mkdir(parents=True)
    for index, mask in enumerate(masks):
        image = Image.fromarray(mask.astype(np.uint8) * 255)
        image.save(folder / f"{index:05d}.png", compress_level=1)
