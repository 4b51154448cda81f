"""The recipe of the tiny grounder: an OWL-ViT detector learns to find described shapes on single frames.

Trains from nothing on AVShapes frames of the seen world, saves model and processor as `DetectorGrounder` reads them,
then measures the saved detector on held-out scenes and logs the gates. It uses no benchmark question and no sound.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import torch
from jaxtyping import Float
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torchvision.ops import box_convert, box_iou

from datamodules.avshapes_boxes import DetectionBatch
from datamodules.avshapes_queries import corpus
from lightning_modules.grounder_gates import measure_gates
from models.detector import DetectorGrounder
from models.tiny.detector import DetectorSizes, build_detector, build_detector_processor
from models.tiny.detector_loss import DetectionLoss, assign_patches, detection_loss
from models.tiny.optimizer import MuonAdamW, cosine_schedule, split_matrices

_NOT_HIDDEN = r"embedding|logit_|dense2"
"""Two-dimensional weights that are tables or output layers."""


class GrounderModule(L.LightningModule):
    """Trains the tiny detector.

    Args:
        sizes: Sizes of the detector.
        seed: Of its starting values and of the tokenizer's text.
        matrix_learning_rate: Peak learning rate of hidden matrices (Muon); warmed up, then decayed to 1 % along a
            cosine over all steps.
        learning_rate: The same of everything else (AdamW).
        warmup_steps: Steps of the warm-up.
        weight_decay: Weight decay of hidden matrices.
        naming_weight: Weight of the focal loss of the description scores.
        box_weight: Weight of the complete-IoU loss.
        distance_weight: Weight of the corner distance.
        export_dir: Folder that model and processor are written to when training ends; None writes nothing and
            measures nothing.
        gate_scenes: Held-out scenes that the gates are measured on.
    """

    def __init__(
        self,
        sizes: DetectorSizes | None = None,
        *,
        seed: int = 0,
        matrix_learning_rate: float = 0.02,
        learning_rate: float = 2e-3,
        warmup_steps: int = 50,
        weight_decay: float = 0.01,
        naming_weight: float = 2.0,
        box_weight: float = 2.0,
        distance_weight: float = 10.0,
        export_dir: str | None = "weights/tiny/grounder",
        gate_scenes: int = 200,
    ) -> None:
        super().__init__()
        self.sizes = sizes or DetectorSizes()
        self.seed = seed
        self.matrix_learning_rate = matrix_learning_rate
        self.learning_rate = learning_rate
        self.warmup_steps = warmup_steps
        self.weight_decay = weight_decay
        self.naming_weight = naming_weight
        self.box_weight = box_weight
        self.distance_weight = distance_weight
        self.export_dir = export_dir
        self.gate_scenes = gate_scenes
        self.processor: Any = None
        self.detector: Any = None

    def configure_model(self) -> None:
        """Build tokenizer and detector from nothing; a second call does nothing."""
        if self.detector is None:
            self.processor = build_detector_processor(corpus(self.seed), self.sizes)
            self.detector = build_detector(self.processor, self.sizes, seed=self.seed)

    def forward(
        self, batch: DetectionBatch
    ) -> tuple[Float[Tensor, "images patches queries"], Float[Tensor, "images patches 4"]]:
        """Ask every image about every description.

        Returns:
            Description logits and boxes (center and size, as shares of the side) of every patch.
        """
        image = self.processor.image_processor
        mean, std = (batch.images.new_tensor(v, dtype=torch.float32) for v in (image.image_mean, image.image_std))
        pixels = (batch.images / 255 - mean[:, None, None]) / std[:, None, None]
        texts = self.processor.tokenizer(
            list(batch.texts), return_tensors="pt", padding=True, truncation=True, max_length=self.sizes.text_length
        ).to(self.device)
        queries = self.detector.owlvit.get_text_features(**texts).pooler_output
        features, _ = self.detector.image_embedder(pixels)
        patches = features.flatten(1, 2)
        logits, _ = self.detector.class_predictor(patches, queries.expand(len(pixels), -1, -1))
        boxes = self.detector.box_predictor(patches, features)
        return logits.float(), boxes.float()

    def training_step(self, batch: DetectionBatch, _: int) -> Tensor:
        """Loss of one batch."""
        loss = self._loss(batch, *self(batch))
        terms = {"naming": self.naming_weight, "boxes": self.box_weight, "distance": self.distance_weight}
        self.log_dict({f"loss/{name}": getattr(loss, name) for name in terms}, prog_bar=True, batch_size=1)
        total: Tensor = sum((weight * getattr(loss, name) for name, weight in terms.items()), torch.zeros(()))
        return total

    def validation_step(self, batch: DetectionBatch, _: int) -> None:
        """Box IoU of the best patch, and whether a score of 0.5 tells present from absent."""
        logits, boxes = self(batch)
        loss = self._loss(batch, logits, boxes)
        best, patch = logits.sigmoid().max(dim=1)  # (images, queries)
        thing, query = (batch.matches & batch.counts[:, None]).nonzero(as_tuple=True)
        image = batch.image_of[thing]
        found = box_convert(boxes[image, patch[image, query]], "cxcywh", "xyxy")
        overlap = box_iou(found, batch.boxes[thing]).diagonal()
        hits = torch.zeros(*best.shape, device=best.device).index_add_(0, batch.image_of, batch.matches.float())
        one = hits[image, query] == 1
        self.log_dict(
            {
                "val/box_iou": overlap[one].mean(),
                "val/found": (best[hits > 0] > 0.5).float().mean(),
                "val/false": (best[hits == 0] > 0.5).float().mean(),
                "val/loss_boxes": loss.boxes,
                "val/loss_naming": loss.naming,
            },
            batch_size=1,
        )

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Muon for hidden matrices, AdamW for the rest; linear warm-up, then a cosine over all steps."""
        optimizer = MuonAdamW(
            *split_matrices(self.detector.named_parameters(), not_hidden=_NOT_HIDDEN),
            matrix_learning_rate=self.matrix_learning_rate,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
        )
        # The trainer's own estimate counts what is left of the loader, which is less when a run is continued.
        steps = self.trainer.max_steps if self.trainer.max_steps > 0 else int(self.trainer.estimated_stepping_batches)
        schedule = cosine_schedule(optimizer, steps, warmup=self.warmup_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_fit_end(self) -> None:
        """Save the detector, read it back as the pipeline does, and log the gates."""
        if self.export_dir is None or not self.trainer.is_global_zero:
            return
        folder = Path(self.export_dir)
        self.detector.save_pretrained(folder)
        self.processor.save_pretrained(folder)
        grounder = DetectorGrounder(str(folder))
        grounder.load()
        gates = measure_gates(grounder, seed=self.seed, scenes=self.gate_scenes)
        rank_zero_info(f"Saved the grounder to {folder}.\n{gates.table()}")

    def _loss(self, batch: DetectionBatch, logits: Tensor, predicted: Tensor) -> DetectionLoss:
        grid = self.sizes.side // self.sizes.patch
        return detection_loss(
            logits,
            predicted,
            assignment=assign_patches(batch.masks, batch.boxes, grid=grid),
            boxes=batch.boxes,
            image_of=batch.image_of,
            counts=batch.counts,
            matches=batch.matches,
        )
