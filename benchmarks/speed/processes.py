"""Measure in processes of their own, all under the same conditions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from speed.results import ROOT, Point

ALLOCATOR = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**34),
    "MALLOC_ARENA_MAX": "1",
}
"""Keep what was freed: otherwise large tensors cost a page fault for every 4 KB each time, on both sides."""

ONE_GPU = {"CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]}
"""The trainer of transformers, on which TRL's is built, would spread a batch over all GPUs that it sees."""

THREADS = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


def in_process(script: Path, point: Point) -> dict[str, Any]:
    """Run a script with `--one POINT` and read the JSON in the last line that it prints.

    Raises:
        subprocess.CalledProcessError: It failed; what it had to say stands above.
    """
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, str(script), "--one", json.dumps(point)],
        env={**os.environ, **ALLOCATOR, **THREADS, **ONE_GPU, "PYTHONPATH": path, "TOKENIZERS_PARALLELISM": "false"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
