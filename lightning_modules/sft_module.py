"""Supervised fine-tuning: the warm start of the tiny reasoner, and the supervised baseline on any benchmark.

A training batch is a list of lessons, questions with right answers: those of a recipe, or those that a data module
makes of its ground truth (`--data.answers`). Clips that validate are answered greedily and go through both systems, as
those of GRPO do; lessons that validate are read teacher-forced, which needs no System 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from datamodules.errors import ConfigError
from datamodules.lessons import Lesson
from datamodules.records import Clip
from grpo.shared_engine import SharedEngine
from lightning_modules.answers import answers_in_rows, answers_with_marks
from lightning_modules.evaluation import EvaluationSettings
from lightning_modules.lesson_scores import LessonScores
from lightning_modules.optim import Schedule, planned_updates, refuse_half_adapter
from lightning_modules.sharded_strategy import ShardedStrategy
from lightning_modules.two_system_module import TwoSystemModule
from models.grounder import Grounder
from models.plan import render_answer
from models.processing import EncodedPrompt
from models.prompts import choose_template
from models.propagator import Propagator
from models.reasoner import Reasoner
from models.rows import TurnIds, read_turns
from models.tiny.optimizer import MuonAdamW, split_matrices
from rewards.base import Reward

_EVALUATION = EvaluationSettings()

_ANSWER_TOKENS = 192
"""Longest held-out answer where `evaluation` names none: nothing is sampled in training that it could follow."""


class SFTModule(TwoSystemModule):
    """Teaches a reasoner to give the right answers; validates, tests and predicts with both systems.

    Attributes:
        lesson_scores: What validation lessons have shown so far.
    """

    def __init__(
        self,
        reasoner: Reasoner,
        *,
        grounder: Grounder | None = None,
        propagator: Propagator | None = None,
        rewards: dict[str, Reward | None] | None = None,
        evaluation: EvaluationSettings = _EVALUATION,
        train: Literal["adapter", "language", "all"] = "adapter",
        learning_rate: float = 3e-4,
        matrix_learning_rate: float = 0.0,
        tower_learning_rate: float = 0.0,
        steps: int | None = None,
        decay_share: float = 0.5,
        weight_decay: float = 0.02,
        mark_weight: float = 0.0,
        mark_layer: int = 2,
        output: str | None = None,
    ) -> None:
        """Keep the settings; weights are read when the run starts.

        Args:
            reasoner: What is trained.
            grounder: System 2's boxes; frozen. None where no clip is ever answered, as in recipes.
            propagator: System 2's masks; frozen. None likewise.
            rewards: Reward terms by name, computed for held-out answers and never trained on.
            evaluation: How held-out clips are answered and what is kept of it.
            train: "adapter" trains the LoRA adapter, "language" the language model itself, "all" the towers as well.
            learning_rate: Peak learning rate of AdamW; warmed up, held, then decayed linearly to 3 %.
            matrix_learning_rate: Peak learning rate of Muon for the hidden matrices, on the same schedule; 0 leaves
                them to AdamW. For training from nothing only.
            tower_learning_rate: The same for the towers; 0 keeps them frozen.
            steps: Optimizer steps of the schedule; null works them out from the trainer and the data.
            decay_share: Share of the steps, at the end, over which the rate decays.
            weight_decay: Of AdamW.
            mark_weight: Weight of the lessons' marks, the labels of media tokens.
            mark_layer: Number of decoder layers after which the marks are read.
            output: Folder for the trained model and its processor; null writes none. An adapter is exported by a
                callback.

        Raises:
            ConfigError: There is an output folder, but only an adapter is trained.
        """
        if output is not None and train == "adapter":
            raise ConfigError(
                f"model.output names a folder for a whole model ({output}), but model.train is adapter, which changes "
                "none. Set --model.train language, or --model.output null."
            )
        super().__init__(
            reasoner,
            grounder=grounder,
            propagator=propagator,
            rewards=rewards or {},
            # What these two stand for is decided below, by rates of its own.
            optimizer=torch.optim.AdamW,
            schedule=Schedule(total_steps=steps),
            evaluation=evaluation,
            engine=SharedEngine(),
            max_new_tokens=_ANSWER_TOKENS,
        )
        self.train_what = train
        self.learning_rate = learning_rate
        self.matrix_learning_rate = matrix_learning_rate
        self.tower_learning_rate = tower_learning_rate
        self.steps = steps
        self.decay_share = decay_share
        self.weight_decay = weight_decay
        self.mark_weight = mark_weight
        self.mark_layer = mark_layer
        self.output = output
        self.lesson_scores = LessonScores()
        self._whole = ExitStack()

    @property
    def _learns_in_rows(self) -> bool:
        """Whether answers are learned as GRPO learns them; marks and trained heads need more than that gives."""
        return self.train_what == "adapter" and not self.mark_weight

    def setup(self, stage: str) -> None:
        """Refuse, before any weights are read, what cannot be trained.

        Raises:
            ConfigError: The base or marks are trained on a base that is spread, or with activations computed again; or
                the precision is not one to train an adapter in.
        """
        if stage != "fit":
            return
        is_sparing = self.reasoner.gradient_checkpointing or isinstance(self.trainer.strategy, ShardedStrategy)
        if is_sparing and not self._learns_in_rows:
            raise ConfigError(
                "model.reasoner.gradient_checkpointing and --trainer.strategy fsdp save memory where an adapter alone "
                f"is trained; found model.train {self.train_what} and model.mark_weight {self.mark_weight}. Set "
                "--model.train adapter --model.mark_weight 0, or neither of the two."
            )
        if self.train_what == "adapter":
            refuse_half_adapter(str(self.trainer.precision))

    def configure_model(self) -> None:
        """Load the weights and decide what is trained."""
        super().configure_model()
        if self.train_what == "adapter":
            return
        self.reasoner.thinker.requires_grad_(self.train_what == "all")
        self.reasoner.language_model.requires_grad_(True)
        self.reasoner.lm_head.requires_grad_(True)

    def training_step(self, batch: Sequence[Lesson], _: int) -> Tensor:
        """Mean cross-entropy of the answers' tokens, and of the marks if they have a weight.

        Raises:
            ConfigError: The data module serves clips without answers.
        """
        if any(isinstance(item, Clip) for item in batch):
            raise ConfigError(
                "supervised training needs right answers, but the data serve clips. Set --data.answers labels."
            )
        logprobs, marks = self._read_answers(batch)
        # A mean over the tokens of all processes, which take the mean of what each of them returns.
        tokens = torch.tensor(len(logprobs), dtype=torch.float32, device=self.device)
        loss = -logprobs.sum() * self.trainer.world_size / self._over_processes(tokens)
        logged = {"loss": loss, "loss/marks": marks}
        self.log_dict(logged, prog_bar=True, batch_size=len(batch), sync_dist=True)
        return loss + self.mark_weight * marks

    def on_after_backward(self) -> None:
        """Put away what the step has gathered."""
        self._whole.close()

    def _over_processes(self, count: Tensor) -> Tensor:
        """Sum of a number of every process."""
        counts = self.all_gather(count)
        if not isinstance(counts, Tensor):
            raise TypeError(f"expected all processes to give tensors, found {type(counts).__name__}")
        return counts.sum()

    def _read_answers(self, batch: Sequence[Lesson]) -> tuple[Tensor, Tensor]:
        """Log-probabilities of the answers' tokens, and the loss of the marks."""
        if self._learns_in_rows:
            with self.reasoner.gathered():
                media, turns, _evidence = self.prepare(batch)
            self._whole.enter_context(self.reasoner.gathered_ends())
            logprobs = answers_in_rows(self.reasoner, media, turns)
            return logprobs, logprobs.new_zeros(())
        # A base is trained in float32, with products in half of it; an adapter with the precision of the trainer.
        is_base = self.train_what != "adapter"
        with torch.autocast(self.device.type, torch.bfloat16) if is_base else nullcontext():
            media, turns, _evidence = self.prepare(batch)
            layer = self.mark_layer if self.mark_weight else None
            return answers_with_marks(self.reasoner, batch, media, turns, mark_layer=layer)

    def validation_step(self, batch: Sequence[Lesson] | list[Clip], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Read lessons teacher-forced; answer clips greedily, and score boxes and masks."""
        lessons = [item for item in batch if isinstance(item, Lesson)]
        if lessons:
            media, turns, evidence = self.prepare(lessons)
            self.lesson_scores.add(self.reasoner, read_turns(self.reasoner, media, turns)[1], evidence)
        else:
            super().validation_step([item for item in batch if isinstance(item, Clip)], batch_idx, dataloader_idx)

    def on_validation_epoch_end(self) -> None:
        """Log what the lessons or the clips have shown."""
        if len(self.lesson_scores):
            self.log_dict(self.lesson_scores.take(prefix="val/"))
        else:
            super().on_validation_epoch_end()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW with a lower rate for the towers.

        Raises:
            ConfigError: The rate should decay until the end, and nothing says when that is.
        """
        total = self.steps or planned_updates(self.trainer, updates_per_batch=1)
        if total is None:
            raise ConfigError(
                "the learning rate decays until the run ends, but neither trainer.max_steps nor trainer.max_epochs says"
                " when that is. Set --trainer.max_steps or --model.steps."
            )
        self.steps = total
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

    def prepare(self, lessons: Sequence[Lesson]) -> tuple[list[EncodedPrompt], list[list[TurnIds]], list[list[str]]]:
        """Encode the clips of a batch and write everything that is asked about each in tokens.

        Media and question come out as they do when the clip is answered, system message included.

        Returns:
            Encoded media, turns, and what every turn takes to answer; one entry per clip each.
        """
        builder = self.reasoner.builder
        templates = [choose_template(builder.template, lesson.clip) for lesson in lessons]
        prompts = [
            builder.media_only(lesson.clip, system=template.system)
            for lesson, template in zip(lessons, templates, strict=True)
        ]
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
        return media, turns, evidence

    def _rate(self, step: int) -> float:
        """Factor of the learning rate: warm-up over 5 % (at most 100 steps), plateau, linear decay to 3 %."""
        steps, step = self.steps or 1, step + self.pace.ahead
        warm = min(100, max(1, steps // 20))
        left = (steps - step) / max(1.0, self.decay_share * steps)
        return max(0.03, min(1.0, (step + 1) / warm, left))
