"""Supervised fine-tuning: the warm start of the tiny reasoner, and the supervised baseline on any benchmark.

A batch is a list of lessons (questions with right answers) or of labeled clips, whose answers are then made of what
the benchmark labels: the frames with the greatest visible area, spread over the clip, and the expression itself as the
description. The description that a person would give is never used.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics.functional.classification import binary_auroc

from datamodules.errors import ConfigError
from datamodules.lessons import Lesson, lesson_from_labels
from datamodules.records import Clip
from lightning_modules.marks import mark_loss
from models.plan import render_answer
from models.processing import EncodedPrompt
from models.prompts import choose_template
from models.reasoner import Reasoner
from models.rows import TurnIds, read_turns
from models.tiny.optimizer import MuonAdamW, split_matrices


class SFTModule(L.LightningModule):
    """Teaches a reasoner to give the right answers.

    Args:
        reasoner: What is trained.
        train: "adapter" trains the LoRA adapter, "language" the language model itself, "all" the towers as well.
        learning_rate: Peak learning rate of AdamW; warmed up, held, then decayed linearly to 3 %.
        matrix_learning_rate: Peak learning rate of Muon for the hidden matrices, on the same schedule; 0 leaves them to
            AdamW. For training from nothing only.
        tower_learning_rate: The same for the towers; 0 keeps them frozen.
        steps: Optimizer steps of the schedule.
        decay_share: Share of the steps, at the end, over which the rate decays.
        weight_decay: Of AdamW.
        max_grad_norm: Gradients are clipped to this norm.
        keyframes: Moments per answer that is made of labels.
        mark_weight: Weight of the lessons' marks, the labels of media tokens.
        mark_layer: Number of decoder layers after which the marks are read.
        output: Folder for the trained model and its processor; None writes none. An adapter is exported by a callback.

    Raises:
        ConfigError: There is an output folder, but only an adapter is trained.
    """

    def __init__(
        self,
        reasoner: Reasoner,
        *,
        train: Literal["adapter", "language", "all"] = "adapter",
        learning_rate: float = 3e-4,
        matrix_learning_rate: float = 0.0,
        tower_learning_rate: float = 0.0,
        steps: int = 1000,
        decay_share: float = 0.5,
        weight_decay: float = 0.02,
        max_grad_norm: float = 1.0,
        keyframes: int = 4,
        mark_weight: float = 0.0,
        mark_layer: int = 2,
        output: str | None = None,
    ) -> None:
        super().__init__()
        if output is not None and train == "adapter":
            raise ConfigError(
                f"model.output names a folder for a whole model ({output}), but model.train is adapter, which changes "
                "none. Set --model.train language, or --model.output null."
            )
        self.reasoner = reasoner
        self.train_what = train
        self.learning_rate = learning_rate
        self.matrix_learning_rate = matrix_learning_rate
        self.tower_learning_rate = tower_learning_rate
        self.steps = steps
        self.decay_share = decay_share
        self.weight_decay = weight_decay
        self.max_grad_norm = max_grad_norm
        self.keyframes = keyframes
        self.mark_weight = mark_weight
        self.mark_layer = mark_layer
        self.output = output
        self._exact: dict[str, list[bool]] = defaultdict(list)
        self._odds: dict[str, list[tuple[float, bool]]] = defaultdict(list)

    def configure_model(self) -> None:
        """Load the weights and decide what is trained."""
        self.reasoner.load()
        if self.train_what == "adapter":
            return
        self.reasoner.thinker.requires_grad_(self.train_what == "all")
        self.reasoner.language_model.requires_grad_(True)
        self.reasoner.lm_head.requires_grad_(True)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:  # noqa: ANN401
        """Leave records alone: their tensors move where they are used."""
        return batch

    def training_step(self, batch: Sequence[Lesson | Clip], _: int) -> Tensor:
        """Mean cross-entropy of the answers' tokens, and of the marks if they have a weight."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.train_what != "adapter"):
            lessons, media, turns, _evidence = self.prepare(batch)
            states, answers = read_turns(self.reasoner, media, turns)
            marks = answers[0].logits.new_zeros(())
            if self.mark_weight:
                marks = torch.stack(
                    [
                        mark_loss(
                            self.reasoner,
                            group.layers[self.mark_layer],
                            [media[clip] for clip in group.clips],
                            [lessons[clip] for clip in group.clips],
                        )
                        for group in states
                    ]
                ).mean()
        logits, labels = torch.cat([part.logits for part in answers]), torch.cat([part.labels for part in answers])
        loss = F.cross_entropy(logits.float(), labels)
        self.log_dict({"loss": loss, "loss/marks": marks}, prog_bar=True, batch_size=len(batch))
        return loss + self.mark_weight * marks

    def validation_step(self, batch: Sequence[Lesson | Clip], _: int) -> None:
        """Collect what `on_validation_epoch_end` scores: answers right word for word, and yes/no log-odds."""
        _lessons, media, turns, evidence = self.prepare(batch)
        _states, answers = read_turns(self.reasoner, media, turns)
        yes, no = (self.reasoner.builder.answer_ids(word)[0] for word in ("yes", "no"))
        for part in answers:
            logits_of, labels_of = (torch.split(values, part.lengths) for values in (part.logits, part.labels))
            for (clip, number), logits, labels in zip(part.turns, logits_of, labels_of, strict=True):
                name = evidence[clip][number]
                self._exact[name].append(bool((logits.argmax(-1) == labels).all()))
                first = int(labels[0])
                if first in (yes, no):
                    odds = float(logits[0, yes] - logits[0, no])
                    self._odds[name.replace("null ", "")].append((odds, first == yes))

    def on_validation_epoch_end(self) -> None:
        """Log, per kind of evidence, the share of exact answers and the AUC of the yes/no log-odds.

        The answers are read teacher-forced. An AUC of 0.5 is blind guessing whatever the share of right answers; kinds
        with one label only have none.
        """
        self.log_dict({f"val/exact/{name}": sum(v) / len(v) for name, v in sorted(self._exact.items())})
        for name, pairs in sorted(self._odds.items()):
            odds, labels = torch.tensor([pair[0] for pair in pairs]), torch.tensor([pair[1] for pair in pairs])
            if labels.any() and not labels.all():
                self.log(f"val/auc/{name}", binary_auroc(odds.sigmoid(), labels.long()))
        self._exact.clear()
        self._odds.clear()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW with a lower rate for the towers."""
        towers: list[nn.Parameter] = []
        rest: list[nn.Parameter] = []
        for name, parameter in self.reasoner.named_parameters():
            if parameter.requires_grad:
                (towers if ".visual." in name or ".audio_tower." in name else rest).append(parameter)
        groups = [{"params": rest, "lr": self.learning_rate}]
        if towers:
            groups.append({"params": towers, "lr": self.tower_learning_rate})
        optimizer: torch.optim.Optimizer
        if self.matrix_learning_rate:
            optimizer = MuonAdamW(
                *split_matrices(self.reasoner.language_model.named_parameters(), not_hidden="embed"),
                matrix_learning_rate=self.matrix_learning_rate,
                learning_rate=self.learning_rate,
            )
        else:
            optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=self.weight_decay)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_fit_end(self) -> None:
        """Save model and processor side by side."""
        if self.output is not None and self.trainer.is_global_zero:
            folder = Path(self.output)
            self.reasoner.thinker.save_pretrained(folder)
            self.reasoner.builder.processor.save_pretrained(folder)

    def prepare(
        self, batch: Sequence[Lesson | Clip]
    ) -> tuple[list[Lesson], list[EncodedPrompt], list[list[TurnIds]], list[list[str]]]:
        """Encode the clips of a batch and write everything that is asked about each in tokens.

        Returns:
            Lessons, encoded media, turns, and what every turn takes to answer; one entry per clip each.
        """
        lessons = [lesson_from_labels(item, self.keyframes) if isinstance(item, Clip) else item for item in batch]
        builder = self.reasoner.builder
        templates = [choose_template(builder.template, lesson.clip) for lesson in lessons]
        prompts = [builder.media_only(x.clip, system=t.system) for x, t in zip(lessons, templates, strict=True)]
        with torch.set_grad_enabled(self.train_what == "all" and self.training):
            media = self.reasoner.encode_all(prompts)
        turns, evidence = [], []
        for lesson, template in zip(lessons, templates, strict=True):
            ask = partial(builder.turn_ids, system=template.system)
            asked = [TurnIds(ask(t.question), builder.answer_ids(t.answer)) for t in lesson.turns]
            for shown in lesson.demonstrations:
                question = template.fill(shown.expression, lesson.clip.duration_s, builder.max_keyframes)
                answer = render_answer(shown.segments, think=shown.thought)
                asked.append(TurnIds(ask(question), builder.answer_ids(answer)))
            turns.append(asked)
            evidence.append([t.evidence for t in lesson.turns] + ["demonstration"] * len(lesson.demonstrations))
        return lessons, media, turns, evidence

    def _rate(self, step: int) -> float:
        """Factor of the learning rate: warm-up over 5 % (at most 100 steps), plateau, linear decay to 3 %."""
        warm = min(100, max(1, self.steps // 20))
        left = (self.steps - step) / max(1.0, self.decay_share * self.steps)
        return max(0.03, min(1.0, (step + 1) / warm, left))
