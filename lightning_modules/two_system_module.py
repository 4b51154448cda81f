"""What every module that trains the reasoner shares: both systems, held-out evaluation, optimizer, checkpoints.

`answer` and `look_closer` are the only way from a clip to masks, for training, evaluation and prediction alike. How the
reasoner learns is up to a subclass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import lightning as L
import torch
from torch import nn

from datamodules.errors import ConfigError
from datamodules.needs import Need
from datamodules.records import Clip, Rollout
from grpo.engine import Engine, SampleRequest
from grpo.rollout import Completion, evaluation_mode
from grpo.sampling import Sampling
from lightning_modules.evaluation import (
    ClipResult,
    Evaluation,
    EvaluationSettings,
    evaluation_metrics,
    gather_results,
    official_metrics,
    official_results,
    place_of,
)
from lightning_modules.optim import Schedule, planned_updates, scheduled
from lightning_modules.pace import Pace
from lightning_modules.phases import PhaseClock
from lightning_modules.reading_ahead import let_loaders_prepare
from lightning_modules.records import Predictions
from lightning_modules.resume_place import match_place
from lightning_modules.trainable_state import check_trainable, keep_trainable
from metrics.clips import rules_for, score_clip
from models.grounder import Grounder
from models.pipeline import TwoSystemPipeline
from models.plan import parse_plan
from models.propagator import Propagator
from models.reasoner import Reasoner
from rewards.base import Reward
from rewards.suite import RewardSuite


class TwoSystemModule(L.LightningModule):
    """Both systems, and everything but the training step.

    Attributes:
        last_validation: The newest pass over the validation clips; None before the first.
        last_test: The same for the test clips.
        clock: Which part of a step runs; a progress bar may listen to it.
    """

    updates_per_batch = 1
    """Optimizer steps per batch; what a planned run is counted in."""

    def __init__(
        self,
        reasoner: Reasoner,
        *,
        grounder: Grounder | None,
        propagator: Propagator | None,
        rewards: Mapping[str, Reward | None],
        optimizer: Callable[[Any], torch.optim.Optimizer],
        schedule: Schedule,
        evaluation: EvaluationSettings,
        engine: Engine,
        max_new_tokens: int,
    ) -> None:
        """Keep the parts; nothing is read from disk before `configure_model`.

        Args:
            reasoner: System 1, whose adapter is trained.
            grounder: System 2's boxes; frozen. None where no clip is ever looked at closely.
            propagator: System 2's masks; frozen. None likewise.
            rewards: Reward terms by name; None leaves a term out.
            optimizer: Makes the optimizer for the trained weights.
            schedule: Learning rate over the run.
            evaluation: How held-out clips are answered and what is kept of it.
            engine: Samples answers.
            max_new_tokens: Longest held-out answer, unless `evaluation` says otherwise.
        """
        super().__init__()
        self.strict_loading = False
        self.reasoner = reasoner
        self.grounder = grounder
        self.propagator = propagator
        self.suite = RewardSuite(rewards)
        self.pipeline = None if grounder is None or propagator is None else TwoSystemPipeline(grounder, propagator)
        self.engine = engine
        self.optimizer = optimizer
        self.schedule = schedule
        self.evaluation = evaluation
        self.greedy = Sampling(max_new_tokens=evaluation.max_new_tokens or max_new_tokens, temperature=0.0)
        self.clock = PhaseClock()
        self.pace = Pace()
        self.last_validation: Evaluation | None = None
        self.last_test: Evaluation | None = None
        self._results: list[ClipResult] = []
        self._kept: list[Rollout] = []

    @property
    def phase(self) -> str:
        """What is running now: "rollout", "System 2", "rewards", "exchange", "update", or "idle"."""
        return self.clock.current

    @property
    def rollout_step(self) -> int:
        """Batches trained on so far."""
        return self.global_step // self.updates_per_batch

    @property
    def trained_parameters(self) -> list[nn.Parameter]:
        """The weights that change."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    @property
    def _is_training(self) -> bool:
        return self.trainer.state.fn == "fit"

    def configure_model(self) -> None:
        """Read all weights, the reasoner's in shares if the strategy spreads them; a second call reads nothing.

        Loaders prepare from then on what needs no weights.
        """
        if self.reasoner.model is None:
            self.reasoner.load(getattr(self.trainer.strategy, "sharding", None))
            if self.pipeline is not None:
                self.pipeline.grounder.load(self.reasoner)
                self.pipeline.propagator.load()
        self.clock.count_passes_of(self.reasoner.embed_tokens)
        data = getattr(self.trainer, "datamodule", None)
        has_masks = "masks" in self.suite.needs or not self._is_training
        let_loaders_prepare(data, self.reasoner.builder, has_masks=has_masks)

    def transfer_batch_to_device(self, batch: list[Clip], device: torch.device, dataloader_idx: int) -> list[Clip]:
        """Leave clips where they are; what is made of them is moved when it is made."""
        return batch

    def answer(
        self, requests: Sequence[SampleRequest], clips: Sequence[Clip], sampling: Sampling
    ) -> tuple[list[list[Completion]], list[list[Rollout]]]:
        """Sample completions of each clip's prompt and read them as plans.

        Returns:
            Per clip, the completions and the same as rollouts, without boxes and masks.
        """
        self.clock.look_at(*(clip.id for clip in clips))
        groups = self.engine.sample(self.reasoner, requests, sampling)
        rollouts = [
            [self._read(clip, index, completion) for index, completion in enumerate(group)]
            for clip, group in zip(clips, groups, strict=True)
        ]
        return groups, rollouts

    def look_closer(self, groups: Sequence[Sequence[Rollout]], needs: frozenset[Need]) -> list[list[Rollout]]:
        """Let System 2 fill in what is needed, all rollouts of a clip together; nothing needed runs nothing.

        Raises:
            ConfigError: Something is needed, and there is no System 2.
        """
        if not needs:
            return [list(group) for group in groups]
        if self.pipeline is None:
            raise ConfigError(
                "answering clips takes a grounder and a propagator. Set --model.grounder and --model.propagator."
            )
        filled = []
        with torch.no_grad(), evaluation_mode(self.reasoner):
            for group in self.clock.through(groups):
                filled.append(self.pipeline.fill(list(group), needs))
        return filled

    def _read(self, clip: Clip, index: int, completion: Completion) -> Rollout:
        text = self.reasoner.decode(completion.ids)
        plan = parse_plan(
            text, fps=clip.frames.fps, frames=clip.frames.count, max_keyframes=self.reasoner.max_keyframes
        )
        return Rollout(clip, index, text, completion.ids, completion.logprobs, completion.is_truncated, plan)

    def _answer_greedily(self, clips: Sequence[Clip], needs: frozenset[Need]) -> list[Rollout]:
        """One answer per clip, looked at as closely as asked."""
        with self.clock.phase("rollout"):
            requests = [SampleRequest(self.reasoner.encode(self.reasoner.prepare(clip)), [0]) for clip in clips]
            _, groups = self.answer(requests, clips, self.greedy)
        with self.clock.phase("System 2"):
            return [group[0] for group in self.look_closer(groups, needs)]

    def _evaluate(self, clips: Sequence[Clip]) -> None:
        masks: frozenset[Need] = frozenset({"boxes", "masks"} if self.evaluation.segment else ())
        with self.reasoner.gathered():
            rollouts = self._answer_greedily(clips, self.suite.needs | masks)
        for rollout in rollouts:
            self._results.append(self._judge(rollout))
            if len(self._kept) < self.evaluation.keep_rollouts:
                self._kept.append(rollout)

    def _judge(self, rollout: Rollout) -> ClipResult:
        clip, scores, values, total = rollout.clip, None, {}, None
        if clip.has_truth:
            output = self.suite.score([[rollout]])[0]
            values, total = {name: column[0] for name, column in output.values.items()}, output.totals[0]
        has_masks = clip.is_null or clip.mask_source is not None
        if has_masks and self.evaluation.segment and rollout.masks is not None:
            scores = score_clip(
                clip.kind,
                rollout.masks,
                clip.masks,
                rules=rules_for(clip.task),
                is_null=clip.is_null,
                plan_absent=rollout.plan.is_absent,
                plan_unparsable=rollout.plan.is_unparsable,
                clip_id=clip.id,
                foreground=None if self._is_training else clip.foreground,
                place=place_of(clip),
            )
        return ClipResult(
            clip_id=clip.id,
            task=clip.task,
            video=f"{clip.task}/{clip.video}",
            kind=clip.kind,
            text=rollout.text,
            is_unparsable=rollout.plan.is_unparsable,
            rewards=values,
            total=total,
            scores=scores,
        )

    def _finish_evaluation(self, prefix: str) -> Evaluation:
        results = gather_results(self._results)
        # Within a training a sample of clips is answered, of which official averages would say nothing.
        official = {} if self._is_training else official_results(results)
        metrics = evaluation_metrics(results, prefix=prefix) | official_metrics(official, prefix=prefix)
        self.log_dict(metrics, rank_zero_only=False, batch_size=1)
        evaluation = Evaluation(self.rollout_step, results, tuple(self._kept), metrics, official)
        self._results, self._kept = [], []
        return evaluation

    def validation_step(self, batch: list[Clip], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Answer held-out clips greedily and score boxes and masks."""
        self._evaluate(batch)

    def on_validation_epoch_end(self) -> None:
        """Log "val/…" and keep the pass as `last_validation`.

        A sanity check of a few batches is not kept; one of all clips (`--trainer.num_sanity_val_steps -1`) is the pass
        before training that later ones are compared with.
        """
        evaluation = self._finish_evaluation("val/")
        if not (self.trainer.sanity_checking and math.isfinite(self.trainer.num_sanity_val_steps)):
            self.last_validation = evaluation

    def test_step(self, batch: list[Clip], batch_idx: int, dataloader_idx: int = 0) -> None:
        """As in validation."""
        self._evaluate(batch)

    def on_test_epoch_end(self) -> None:
        """Log "test/…" and keep the pass as `last_test`."""
        self.last_test = self._finish_evaluation("test/")

    def predict_step(self, batch: list[Clip], batch_idx: int, dataloader_idx: int = 0) -> Predictions:
        """Answer clips greedily, with boxes and masks; no ground truth is read."""
        with self.reasoner.gathered():
            return Predictions(self._answer_greedily(batch, frozenset({"boxes", "masks"})))

    def configure_optimizers(self) -> Any:  # noqa: ANN401 (Lightning's union of forms)
        """The optimizer over the trained weights, and its schedule.

        Raises:
            ConfigError: The learning rate should fall until the end, and nothing says when that is.
        """
        optimizer = self.optimizer(self.trained_parameters)
        total = self.schedule.total_steps or planned_updates(self.trainer, updates_per_batch=self.updates_per_batch)
        if total is None and self.schedule.decay != "constant":
            raise ConfigError(
                f"model.schedule.decay is {self.schedule.decay!r}, which needs to know when the run ends; found "
                "neither trainer.max_steps nor trainer.max_epochs. Set --trainer.max_steps or "
                "--model.schedule.total_steps."
            )
        scheduler = scheduled(optimizer, self.schedule, total or 1, ahead=lambda: self.pace.ahead)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave the frozen weights out, and keep where the schedule stands."""
        keep_trainable(self, checkpoint)
        self.pace.save(checkpoint, self.trainer, self.updates_per_batch)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint that does not hold the whole adapter; go on at its place in the epoch."""
        check_trainable(self, checkpoint)
        match_place(checkpoint, self.trainer)
        if self._is_training and self.schedule.total_steps is None:
            self.pace.load(checkpoint, self.trainer, self.updates_per_batch)
