"""The recipe of the tiny propagator: a small SAM2 learns box -> mask and one look back, then to follow.

Trains SAM2's own classes from nothing on AVShapes clips of the seen world, saves the weights as `SAM2Propagator` reads
them, reads them back, and measures on held-out clips what the pipeline will see (`propagator_gates`). It uses no
benchmark question, no description and no sound.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
import yaml
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from datamodules.avshapes_video import HeldOutCases, TrackingCase
from datamodules.avshapes_windows import WindowBatch
from datamodules.errors import ConfigError
from lightning_modules.propagator_gates import CaseScore, PropagatorGates, gates, score_case
from models.propagator import SAM2Propagator
from models.sam2_loading import WEIGHTS_FILE, save_predictor
from models.sam2_predictor import normalize_frames
from models.tiny.lookback import lookback_loss, watch_memory_attention
from models.tiny.propagator import TINY_CONFIG, Window, build_tiny_propagator, track_window
from models.tiny.propagator_loss import window_loss

_GATE_SEED = 1_000
"""Added to the seed, so that the gates are measured on other clips than those watched during training."""
_ROUGH_JITTER = 0.15
"""Moves of a box's sides that leave a mean IoU of about 0.75 with the tight box, as a detector's."""


class PropagatorModule(L.LightningModule):
    """Trains the tiny SAM2.

    Args:
        seed: Of its first weights and of the gates' clips.
        pair_steps: Steps of the first stage, single frames and pairs of frames whose prompted mask is remembered as
            it truly is; the data module's `pair_steps`.
        video_steps: Steps of the second stage, windows without any help; the data module's `video_steps`.
        learning_rate: Peak of AdamW's learning rate in the first stage; warmed up, held for half of the stage, then
            brought down to `memory_learning_rate`.
        memory_learning_rate: Learning rate at the start of the second stage, decayed to 2 % along a cosine. From
            nothing, memory does not survive more than about 1e-3.
        warmup_steps: Steps of the warm-up.
        weight_decay: AdamW's weight decay.
        object_weight: Weight of the object score's loss.
        absent_weight: Weight of a frame without the thing in that loss; a frame with it has 1.
        lookback_weight: Weight of the loss that tells memory attention where to look, on pairs of frames.
        export_dir: Folder that the weights are written to when training ends; null writes and measures nothing.
        gate_cases: Held-out clips that the gates are measured on.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        pair_steps: int = 500,
        video_steps: int = 1500,
        learning_rate: float = 1.2e-3,
        memory_learning_rate: float = 6e-4,
        warmup_steps: int = 60,
        weight_decay: float = 0.01,
        object_weight: float = 1.0,
        absent_weight: float = 2.0,
        lookback_weight: float = 0.3,
        export_dir: str | None = "weights/tiny/propagator",
        gate_cases: int = 200,
    ) -> None:
        super().__init__()
        self.seed = seed
        self.pair_steps = pair_steps
        self.video_steps = video_steps
        self.learning_rate = learning_rate
        self.memory_learning_rate = memory_learning_rate
        self.warmup_steps = warmup_steps
        self.weight_decay = weight_decay
        self.object_weight = object_weight
        self.absent_weight = absent_weight
        self.lookback_weight = lookback_weight
        self.export_dir = export_dir
        self.gate_cases = gate_cases
        self.predictor: Any = None
        self._watched: SAM2Propagator | None = None
        self._scores: list[CaseScore] = []
        self._started_s = 0.0

    def configure_model(self) -> None:
        """Build the model from nothing; a second call does nothing."""
        if self.predictor is None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.seed)
                self.predictor = build_tiny_propagator().train()

    def on_fit_start(self) -> None:
        """Refuse a data module with other stages.

        Raises:
            ConfigError: The data module's stages are not the ones that the learning rate follows.
        """
        self._started_s = time.perf_counter()
        data = getattr(self.trainer, "datamodule", None)
        found = {name: getattr(data, name, None) for name in ("pair_steps", "video_steps")}
        problems = [
            f"model.{name} is {getattr(self, name)} and data.{name} is {steps}; set both to the same number."
            for name, steps in found.items()
            if steps is not None and steps != getattr(self, name)
        ]
        if problems:
            raise ConfigError(" ".join(problems))

    def training_step(self, batch: WindowBatch, _: int) -> Tensor:
        """Loss of one batch of windows."""
        # SAM2 chooses memories by other rules in training mode; the tiny one learns by those it is used with.
        self.predictor.eval()
        stage = {1: "image", 2: "pair"}.get(batch.frames.shape[1], "video")
        window = Window(
            normalize_frames(batch.frames),
            batch.clip,
            batch.boxes,
            batch.prompted,
            batch.clip_frames,
            known=batch.masks[:, list(batch.prompted)] if stage == "pair" else None,
        )
        with watch_memory_attention(self.predictor) as looks:
            outputs = track_window(self.predictor, window)
        loss = window_loss(outputs, batch.masks, absent_weight=self.absent_weight)
        total = loss.mask + self.object_weight * loss.object
        named = {f"loss/{stage}_mask": loss.mask, f"loss/{stage}_object": loss.object}
        if stage == "pair":
            remembered = batch.prompted[0]
            lookback = lookback_loss(looks, batch.masks[:, remembered], batch.masks[:, 1 - remembered])
            total = total + self.lookback_weight * lookback
            named["loss/pair_lookback"] = lookback
        seen = {f"train/{stage}_iou": loss.iou, f"train/{stage}_object_errors": loss.object_errors}
        self.log_dict(named | seen, prog_bar=True, batch_size=1)
        return total

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW with one schedule over both stages."""
        optimizer = torch.optim.AdamW(
            self.predictor.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay, betas=(0.9, 0.98)
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": LambdaLR(optimizer, self.factor), "interval": "step"},
        }

    def factor(self, step: int) -> float:
        """The learning rate of a step, as a multiple of `learning_rate`.

        Args:
            step: 0-based; steps after the second stage keep its last value.
        """
        lower = self.memory_learning_rate / self.learning_rate
        if step < self.pair_steps:
            descent = max(0.0, 2 * step / self.pair_steps - 1)
            return min(1.0, (step + 1) / self.warmup_steps) * (1 - (1 - lower) * descent)
        progress = min(1.0, (step - self.pair_steps) / max(1, self.video_steps))
        return lower * (0.02 + 0.98 * (1 + math.cos(math.pi * progress)) / 2)

    def on_validation_start(self) -> None:
        """Take a copy of the weights to the real predictor."""
        self._watched = SAM2Propagator("weights in training")
        self._watched.use(copy.deepcopy(self.predictor))
        self._scores = []

    def validation_step(self, case: TrackingCase, _: int) -> None:
        """Follow one held-out thing with the real predictor."""
        if self._watched is not None:
            self._scores.append(score_case(self._watched, case))

    def on_validation_epoch_end(self) -> None:
        """Log the gates' numbers on the watched clips."""
        found = gates(self._scores)
        self._watched = None
        numbers = {"keyframe_iou": found.keyframe_iou, "j": found.j, "false_masks": found.false_masks}
        self.log_dict({f"val/{name}": value for name, value in numbers.items()}, prog_bar=True)

    def on_fit_end(self) -> None:
        """Save the weights, read them back as the pipeline does, measure and report."""
        if self.export_dir is None or not self.trainer.is_global_zero:
            return
        seconds = time.perf_counter() - self._started_s
        folder = Path(self.export_dir)
        save_predictor(self.predictor, folder, config_file=TINY_CONFIG)
        propagator = SAM2Propagator(str(folder))
        propagator.load()
        good = self.measure(propagator, jitter=0.05)
        rough = self.measure(propagator, jitter=_ROUGH_JITTER)
        verdict = "All gates hold" if good.are_passed else "Some gates do not hold"
        card = {
            "seed": self.seed,
            "steps": [self.pair_steps, self.video_steps],
            "seconds": round(seconds),
            "bytes": (folder / WEIGHTS_FILE).stat().st_size,
            "cases": self.gate_cases,
            "quality": _rounded(good),
            "quality_with_rough_boxes": _rounded(rough),
        }
        (folder / "card.yaml").write_text(yaml.safe_dump(card, sort_keys=False))
        rank_zero_info(
            f"Saved the propagator to {folder}. {verdict} on {self.gate_cases} held-out clips.\n{good.table()}\n"
            f"With boxes as rough as a detector's:\n{rough.table()}"
        )

    def measure(self, propagator: SAM2Propagator, *, jitter: float) -> PropagatorGates:
        """Measure a propagator on the gates' clips.

        Args:
            propagator: Loaded.
            jitter: Largest move of a side of the prompted box, share of its extent.
        """
        cases = HeldOutCases(self.seed + _GATE_SEED, count=self.gate_cases, size=224, jitter=jitter)
        scores: Sequence[CaseScore] = [score_case(propagator, cases[index]) for index in range(len(cases))]
        return gates(scores)


def _rounded(found: PropagatorGates) -> dict[str, float]:
    return {name: round(value, 3) for name, value in vars(found).items()}
