"""Random weights of the tiny sizes on disk, and short runs on them: everything runs, nothing is found."""

import shutil
from pathlib import Path

import torch

from models.sam2_loading import save_predictor
from models.tiny.detector import DetectorSizes, build_detector, build_detector_processor
from models.tiny.propagator import TINY_CONFIG, build_tiny_propagator
from models.tiny.reasoner import TinySizes, build_processor, build_thinker, build_tokenizer

LINES = ["find the red circle", "the blue square", '{"start_time": "00:01.00", "end_time": "00:02.00"}']


def write_random_weights(folder: Path) -> Path:
    """Fill `reasoner`, `grounder` and `propagator` below a folder, and return it."""
    shutil.rmtree(folder, ignore_errors=True)
    sizes = TinySizes(hidden=64, layers=2, heads=2, key_value_heads=1, feed_forward=96, vision_layers=1, audio_layers=1)
    tokenizer = build_tokenizer(LINES, vocabulary=300)
    build_thinker(tokenizer, sizes, seed=0).save_pretrained(folder / "reasoner")
    build_processor(tokenizer, sizes).save_pretrained(folder / "reasoner")
    detector_sizes = DetectorSizes()
    processor = build_detector_processor(LINES, detector_sizes)
    build_detector(processor, detector_sizes).save_pretrained(folder / "grounder")
    processor.save_pretrained(folder / "grounder")
    torch.manual_seed(0)
    save_predictor(build_tiny_propagator(), folder / "propagator", config_file=TINY_CONFIG)
    return folder


SIZES = "{train: 48, val: 16, test_s: 4, test_u: 4, test_n: 2, null_train: 8, null_val: 4}"
"""Of a generated RefAVS that is made in seconds."""


def fast_flags(weights: Path, benchmark_cache: Path, runs: Path) -> list[str]:
    """Flags that make the RefAVS run a matter of seconds.

    Args:
        weights: From `write_random_weights`.
        benchmark_cache: Folder for the generated benchmark.
        runs: Folder for run folders.
    """
    parts = [f"--model.{part}.path={weights / part}" for part in ("reasoner", "grounder", "propagator")]
    return [
        "--config=configs/refavs.yaml",
        "--config=configs/debug/fast.yaml",
        f"--trainer.logger.save_dir={runs}",
        f"--data.avshapes_cache={benchmark_cache}",
        f"--data.avshapes_sizes={SIZES}",
        *parts,
    ]
