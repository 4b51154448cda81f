"""Write AVShapes in the layout of MeViS.

    train/ and valid_u/
        JPEGImages/<video>/00000.jpg ...   <video> is twelve hexadecimal digits
        meta_expressions.json
        mask_dict.json                     anno_id to one COCO run-length mask per frame, null where it is not visible
    valid/                                 the same without masks, obj_id and anno_id: for submissions
    truth.jsonl                            not part of the layout; see `datamodules.avshapes.truth`

Expressions are about motion and have one target or several. There is no sound and no expression without a target, as in
the first release. Not imitated: sparse annotation, videos of differing size and length.

Reference:
    MeViS: A Large-scale Benchmark for Video Segmentation with Motion Expressions, arXiv:2308.08544.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from datamodules.avshapes.expressions import Expression
from datamodules.avshapes.motion import choose_targets, motion_expressions
from datamodules.avshapes.render import render_frames
from datamodules.avshapes.scene import sample_scene
from datamodules.avshapes.settings import MevisSizes
from datamodules.avshapes.truth import Truth, describe_things, make_truth, write_truth
from datamodules.avshapes.world import Stream, World, generator
from datamodules.avshapes.write_revos import Rle, dump_json, encode_masks

SPLITS = ("train", "valid_u", "valid")
WITHOUT_MASKS = ("valid",)

_BENCHMARK = 2
_JPEG_QUALITY = 95
_ID_DIGITS = 12
_VIDEOS_PER_SPLIT = 1_000_000


@dataclass(frozen=True)
class MevisJob:
    """One video to write: which split, and which video of that split."""

    split: str
    index: int


@dataclass(frozen=True)
class MevisResult:
    """What a written video adds to the tables.

    Attributes:
        split: Its split.
        video: Its name.
        meta: Its entry of the expression table.
        masks: anno_id to one run-length mask, or None, per frame.
        truths: The truth of each expression.
    """

    split: str
    video: str
    meta: dict[str, object]
    masks: dict[str, list[Rle | None]]
    truths: tuple[Truth, ...]


def mevis_jobs(sizes: MevisSizes) -> list[MevisJob]:
    """Every video of a tree, in the order of the tables."""
    counts = {"train": sizes.train, "valid_u": sizes.valid_u, "valid": sizes.valid}
    return [MevisJob(split, index) for split in SPLITS for index in range(counts[split])]


def write_mevis_clip(job: MevisJob, root: Path, *, seed: int, world: World, sizes: MevisSizes) -> MevisResult:
    """Write one video; nothing depends on the videos written before.

    Args:
        job: Which one.
        root: Root of the tree.
        seed: The tree's seed.
        world: The dials.
        sizes: How many expressions per video; the numbers of videos are ignored.
    """
    number = SPLITS.index(job.split) * _VIDEOS_PER_SPLIT + job.index
    scene = sample_scene((seed, _BENCHMARK, SPLITS.index(job.split), job.index), world)
    digits = generator(scene.key, Stream.NAMES).integers(16, size=_ID_DIGITS)
    video = "".join(f"{digit:x}" for digit in digits)
    frames, masks = render_frames(scene)
    names = [f"{index:05d}" for index in range(len(frames))]
    folder = root / job.split / "JPEGImages" / video
    folder.mkdir(parents=True)
    for name, frame in zip(names, frames, strict=True):
        Image.fromarray(frame).save(folder / f"{name}.jpg", quality=_JPEG_QUALITY)

    rng = generator(scene.key, Stream.TEXT)
    chosen = choose_targets(motion_expressions(scene, rng), sizes.expressions, rng)
    anno_ids = [10 * number + index for index in range(len(scene.things))]
    mentioned = sorted({target for expression in chosen for target in expression.targets})
    things = describe_things(scene, masks.mean(axis=(2, 3)), anno_ids)
    has_masks = job.split not in WITHOUT_MASKS
    return MevisResult(
        split=job.split,
        video=video,
        meta={
            "vid_id": number,
            "frames": names,
            "expressions": {
                str(index): _entry(item, anno_ids) if has_masks else {"exp": item.text}
                for index, item in enumerate(chosen)
            },
        },
        masks={str(anno_ids[target]): encode_masks(masks[:, target]) for target in mentioned},
        truths=tuple(
            make_truth(
                expression,
                split=job.split,
                clip=video,
                audio="muted",
                scene=scene,
                things=things,
                sounds=(),
                expression_id=str(index),
            )
            for index, expression in enumerate(chosen)
        ),
    )


def finish_mevis(root: Path, results: Sequence[MevisResult]) -> None:
    """Write the tables once every video is there; a split without videos is left out."""
    for split in SPLITS:
        written = [result for result in results if result.split == split]
        if not written:
            continue
        dump_json(root / split / "meta_expressions.json", {"videos": {one.video: one.meta for one in written}})
        if split not in WITHOUT_MASKS:
            masks = {key: mask for result in written for key, mask in result.masks.items()}
            dump_json(root / split / "mask_dict.json", masks)
    write_truth(root, (truth for result in results for truth in result.truths))


def _entry(expression: Expression, anno_ids: Sequence[int]) -> dict[str, object]:
    """One expression of the table."""
    return {
        "exp": expression.text,
        "obj_id": list(expression.targets),
        "anno_id": [anno_ids[target] for target in expression.targets],
    }
