"""The command line of the project.

    python train.py fit --config configs/refavs.yaml
    python train.py test --config configs/refavs.yaml --ckpt_path runs/refavs/version_0/checkpoints/last.ckpt
    python train.py predict --config configs/refavs.yaml --data.video clip.mp4 --data.expression "..."

`fit`, `validate`, `test` and `predict` take configuration files (`--config`, later ones win) and flags (which win over
files). `--print_config` shows what a command would run with; `fit --resume FOLDER` goes on with a run.

This file only says what the command line offers: which callbacks there are, under which key their settings are found,
and which classes go by their short names.
"""

from __future__ import annotations

import sys

from lightning.pytorch.callbacks import Callback

from callbacks.banner import StartBanner
from callbacks.checkpoint import RunCheckpoint
from callbacks.curves import CurveGroups
from callbacks.export import ExportAdapter
from callbacks.health import HealthMonitor
from callbacks.interrupt import GracefulInterrupt
from callbacks.memory_check import MemoryCheck
from callbacks.overlays import MaskOverlays
from callbacks.predictions import PredictionWriter
from callbacks.progress import RunProgress
from callbacks.rank_watch import RankWatch
from callbacks.results import ResultsWriter
from callbacks.rollout_table import RolloutTable
from callbacks.summary import FitSummary
from callbacks.throughput import Throughput
from datamodules.mixture import MixtureDataModule
from datamodules.modules import MeViSDataModule, RefAVSDataModule, ReVOSDataModule
from lightning_modules.cli import run
from lightning_modules.grpo_module import GRPOModule
from lightning_modules.sft_module import SFTModule
from models.box_grounder import ReasonerGrounder
from models.detector import DetectorGrounder
from models.propagator import SAM2Propagator
from rewards import catalog

CALLBACKS: dict[str, type[Callback]] = {
    "banner": StartBanner,
    "progress": RunProgress,
    "curves": CurveGroups,
    "checkpoint": RunCheckpoint,
    "interrupt": GracefulInterrupt,
    "ranks": RankWatch,
    "memory": MemoryCheck,
    "rollouts": RolloutTable,
    "overlays": MaskOverlays,
    "health": HealthMonitor,
    "throughput": Throughput,
    "adapter": ExportAdapter,
    "summary": FitSummary,
    "results": ResultsWriter,
    "predictions": PredictionWriter,
}
"""Named callbacks: `--checkpoint.every_n_train_steps 8` sets one thing of one of them."""

SHORT_NAMES = (
    GRPOModule,
    SFTModule,
    RefAVSDataModule,
    ReVOSDataModule,
    MeViSDataModule,
    MixtureDataModule,
    ReasonerGrounder,
    DetectorGrounder,
    SAM2Propagator,
    *(getattr(catalog, name) for name in catalog.__all__),
)
"""Classes that flags and files may name without their module; any other class goes by its dotted path."""

if __name__ == "__main__":
    sys.exit(run(sys.argv[1:], callbacks=CALLBACKS))
