"""First step of the tiny reasoner: teach the towers to name what they see and hear.

Every visual and every sound token is trained toward the sum of the language model's own word embeddings of what it
covers, so that reading a scene is, from the first step of the second stage on, reading words. Nothing here knows the
task: no question, no target, no answer form.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from datamodules.avshapes.lesson_stream import LessonStream
from datamodules.avshapes.marks import MARK_WORDS
from datamodules.avshapes.perception import HEARD_WORDS, SEEN_WORDS, PerceptionBatch
from datamodules.avshapes.scene import World
from models.plan import render_answer
from models.prompts import TEMPLATES
from models.thinker import multimodal_part
from models.tiny.optimizer import MuonAdamW, cosine_schedule, split_matrices
from models.tiny.reasoner import build_processor, build_thinker, build_tokenizer


class PerceptionModule(L.LightningModule):
    """Builds a tiny thinker and trains its vision and audio towers on labeled tokens.

    Args:
        output: Folder for model and processor at the end.
        seed: Of the weights and of the text that the tokenizer is trained on.
        vocabulary: Most tokens of the tokenizer.
        matrix_learning_rate: Peak of Muon's learning rate, for the hidden matrices.
        learning_rate: Peak of AdamW's learning rate, for the rest; both are warmed up over 50 steps, then decayed to
            1 % along a cosine.
        steps: Steps of the decay.
        sharpness: Logit per unit of agreement between a token and a word's embedding.
        alignment: Weight of the squared distance to the sum of the fitting words' embeddings.
    """

    def __init__(
        self,
        output: str = "weights/tiny/perception",
        *,
        seed: int = 0,
        vocabulary: int = 768,
        matrix_learning_rate: float = 0.02,
        learning_rate: float = 2e-3,
        steps: int = 1000,
        sharpness: float = 8.0,
        alignment: float = 0.5,
    ) -> None:
        super().__init__()
        self.output = output
        self.seed = seed
        self.vocabulary = vocabulary
        self.matrix_learning_rate = matrix_learning_rate
        self.learning_rate = learning_rate
        self.steps = steps
        self.sharpness = sharpness
        self.alignment = alignment
        self.processor: Any = None
        self.thinker: Any = None

    def configure_model(self) -> None:
        """Train the tokenizer, build processor and thinker, and freeze all but the towers."""
        if self.thinker is not None:
            return
        tokenizer = build_tokenizer(lesson_text(self.seed), vocabulary=self.vocabulary)
        self.processor = build_processor(tokenizer)
        self.thinker = build_thinker(tokenizer, seed=self.seed)
        self.thinker.requires_grad_(False)
        for tower in self.towers:
            tower.requires_grad_(True)

    @property
    def towers(self) -> list[nn.Module]:
        """What is trained."""
        model = multimodal_part(self.thinker)
        return [model.visual, model.audio_tower]

    def on_fit_end(self) -> None:
        """Save model and processor side by side."""
        if self.trainer.is_global_zero:
            self.thinker.save_pretrained(Path(self.output))
            self.processor.save_pretrained(Path(self.output))

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:  # noqa: ANN401
        """Leave records alone: their tensors move where they are used."""
        return batch

    def training_step(self, batch: PerceptionBatch, _: int) -> Tensor:
        """Loss of one batch: both towers together."""
        seen, heard = self.see(batch), self.hear(batch)
        losses = {
            "seen": self._naming_loss(seen, batch.seen, batch.seen_known, SEEN_WORDS),
            "heard": self._naming_loss(heard, batch.heard, batch.heard_known, HEARD_WORDS),
        }
        self.log_dict({f"loss/{name}": value for name, value in losses.items()}, prog_bar=True, batch_size=1)
        return losses["seen"] + losses["heard"]

    def validation_step(self, batch: PerceptionBatch, _: int, dataloader_idx: int = 0) -> None:
        """F1 of every word over tokens whose label is certain; scenes with unseen pairs are measured apart."""
        part = "val/unseen_pairs" if dataloader_idx else "val"
        for labels, known, words, tokens in (
            (batch.seen, batch.seen_known, SEEN_WORDS, self.see(batch)),
            (batch.heard, batch.heard_known, HEARD_WORDS, self.hear(batch)),
        ):
            logits = self._logits(tokens, words)
            truth, sure = torch.from_numpy(labels).flatten(0, 1), torch.from_numpy(known).flatten(0, 1)
            hit = (logits > 0) & sure
            f1 = 2 * (hit & truth).sum(0) / (hit.sum(0) + (truth & sure).sum(0)).clamp(min=1)
            name = "seen" if words is SEEN_WORDS else "heard"
            scores = {f"{part}/{name}/{word}": value for word, value in zip(words, f1, strict=True)}
            scores[f"{part}/{name}"] = f1.mean()
            self.log_dict(scores, batch_size=len(labels), add_dataloader_idx=False)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Muon for hidden matrices, AdamW for the rest."""
        optimizer = MuonAdamW(
            *split_matrices(self.thinker.named_parameters(), not_hidden="embed"),
            matrix_learning_rate=self.matrix_learning_rate,
            learning_rate=self.learning_rate,
        )
        schedule = cosine_schedule(optimizer, self.steps, warmup=50)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def see(self, batch: PerceptionBatch) -> Float[Tensor, "tokens hidden"]:
        """Visual tokens of every pair of frames, row by row."""
        videos = [torch.from_numpy(pair).permute(0, 3, 1, 2) for pair in batch.frames]
        side = batch.frames.shape[2]
        size = {"shortest_edge": 28 * 28, "longest_edge": side * side}
        inputs = self.processor.video_processor(videos, size=size, return_tensors="pt")
        with self._fast():
            features = multimodal_part(self.thinker).get_video_features(
                inputs["pixel_values_videos"].to(self.device), inputs["video_grid_thw"].to(self.device)
            )
        tokens: Tensor = torch.cat(list(features.pooler_output)).float()
        return tokens

    def hear(self, batch: PerceptionBatch) -> Float[Tensor, "tokens hidden"]:
        """Sound tokens of every clip in time order."""
        extractor = self.processor.feature_extractor
        inputs = extractor(
            list(batch.sounds),
            sampling_rate=extractor.sampling_rate,
            padding="max_length",
            return_attention_mask=True,
            return_tensors="pt",
        )
        with self._fast():
            features: Tensor = (
                multimodal_part(self.thinker)
                .get_audio_features(inputs["input_features"].to(self.device), inputs["attention_mask"].to(self.device))
                .last_hidden_state
            )
        return features.float()

    def _fast(self) -> torch.autocast:
        """bfloat16 for the towers; not for the extractors, which hand their result to NumPy."""
        return torch.autocast(self.device.type, torch.bfloat16)

    def word_embeddings(self, words: Sequence[str]) -> Float[Tensor, "words hidden"]:
        """Embeddings of words as they stand inside a sentence.

        Raises:
            ValueError: A word is more than one token, so that no single embedding stands for it.
        """
        rows = []
        for word in words:
            ids = self.processor.tokenizer(" " + word, add_special_tokens=False).input_ids
            if len(ids) != 1:
                raise ValueError(f"expected {word!r} to be one token, found {len(ids)}; train the tokenizer on it")
            rows.append(ids[0])
        weight: Tensor = self.thinker.get_input_embeddings().weight
        return weight[torch.tensor(rows, device=weight.device)]

    def _logits(self, tokens: Float[Tensor, "tokens hidden"], words: Sequence[str]) -> Float[Tensor, "tokens words"]:
        embeddings = self.word_embeddings(words)
        agreement: Tensor = tokens.float() @ embeddings.T / embeddings.norm(dim=-1) ** 2
        return self.sharpness * (agreement - 0.5)

    def _naming_loss(
        self,
        tokens: Float[Tensor, "tokens hidden"],
        labels: Bool[Any, "items cells words"],
        known: Bool[Any, "items cells words"],
        words: Sequence[str],
    ) -> Tensor:
        """Cross-entropy per word where labels are certain, plus the distance to the sum of the fitting words."""
        truth = torch.from_numpy(labels).flatten(0, 1).to(tokens.device)
        sure = torch.from_numpy(known).flatten(0, 1).to(tokens.device)
        naming = F.binary_cross_entropy_with_logits(self._logits(tokens, words), truth.float(), reduction="none")
        target = truth.float() @ self.word_embeddings(words)
        certain = sure.all(dim=1)
        distance = (tokens.float() - target).square().sum(dim=1)
        filled = certain & truth.any(dim=1)
        blank = certain & ~truth.any(dim=1)
        return (naming * sure).sum() / truth.sum().clamp(min=1) + self.alignment * (
            distance[filled].mean() + distance[blank].mean()
        )


def lesson_text(seed: int, lessons: int = 600) -> Iterator[str]:
    """Text of many lessons, for a tokenizer that is short on them."""
    stream = LessonStream(seed=seed, clips=1, steps=lessons, world=World(), demonstrations=3, cells=0)
    for step in range(lessons):
        lesson = stream.draw(step, 0)
        for turn in lesson.turns:
            yield f" {turn.question}"
            yield turn.answer
        for shown in lesson.demonstrations:
            yield TEMPLATES["short"].fill(shown.expression, 10.0, 4)
            yield render_answer(shown.segments, think=shown.thought)
    for word in (*SEEN_WORDS, *HEARD_WORDS, *MARK_WORDS):
        yield from [f"the {word}"] * lessons
