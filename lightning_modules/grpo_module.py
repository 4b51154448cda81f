"""GRPO on the reasoner: sample, look closer, reward, compare, update.

One training step takes the prompts of one batch through the whole method. *Rollout*: every clip is encoded once and
answered `group_size` times. *System 2*: boxes and masks are filled in for all answers of a clip together, as far as a
weighted reward reads them. *Rewards* are turned into advantages within each group. *Update*: `updates_per_rollout`
optimizer steps on all of these completions; only the adapter is trained.

Optimization is manual, because one batch makes several optimizer steps: `global_step` (and `--trainer.max_steps`)
counts optimizer steps, `rollout_step` counts batches. Sampling depends on seed, rollout step, clip and how often the
clip stands earlier in the step, never on the process that happens to hold it.

Reference:
    Omni-R1, arXiv:2505.20256, section 3; GRPO, arXiv:2402.03300, algorithm 1. We differ in training a LoRA adapter
    instead of all weights; the reference policy is the base model with the adapter switched off.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from jaxtyping import Float, Shaped
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from datamodules.errors import ConfigError
from datamodules.lessons import Lesson
from datamodules.records import Clip
from grpo.advantages import group_advantages, has_no_spread
from grpo.engine import SampleRequest
from grpo.engines import build_engine
from grpo.losses import UpdateSize
from grpo.noise import noise_key
from grpo.sampling import Sampling
from grpo.self_check import CheckedUpdate, SelfCheck
from grpo.settings import GRPOSettings
from grpo.stats import LossStats, loss_metrics
from grpo.update import MicroBatch, PromptGroup, cut, micro_batch_loss, reference_logprobs, worth_training
from lightning_modules.evaluation import EvaluationSettings
from lightning_modules.optim import Schedule, clip_gradients, gradient_sync, refuse_half_adapter, refuse_scaling
from lightning_modules.records import GroupRecord
from lightning_modules.step_table import StepTable
from lightning_modules.two_system_module import TwoSystemModule
from models.grounder import Grounder
from models.processing import EncodedPrompt
from models.propagator import Propagator
from models.reasoner import Reasoner
from rewards.base import Reward
from rewards.suite import RewardOutput
from rewards.summary import summarize

_GRPO, _SAMPLING, _SCHEDULE, _EVALUATION = GRPOSettings(), Sampling(), Schedule(), EvaluationSettings()
_ON_THE_BAR = ("reward", "kl", "completions/mean_length")


class GRPOModule(TwoSystemModule):
    """Trains the reasoner's adapter with GRPO, and validates, tests and predicts with both systems.

    Attributes:
        last_groups: The newest training step, prompt by prompt, for callbacks; those of this process.
        num_tokens: Prompt and completion tokens of all training rollouts so far, prompts counted once per rollout.
    """

    def __init__(
        self,
        reasoner: Reasoner,
        *,
        grounder: Grounder,
        propagator: Propagator,
        rewards: dict[str, Reward | None] | None = None,
        grpo: GRPOSettings = _GRPO,
        sampling: Sampling = _SAMPLING,
        optimizer: OptimizerCallable = lambda parameters: torch.optim.AdamW(parameters, lr=3e-4, weight_decay=0.0),
        schedule: Schedule = _SCHEDULE,
        evaluation: EvaluationSettings = _EVALUATION,
    ) -> None:
        """Keep the settings; weights are read when the run starts.

        Args:
            reasoner: System 1, whose adapter is trained.
            grounder: System 2's boxes; frozen.
            propagator: System 2's masks; frozen.
            rewards: Reward terms by name; null leaves a term out.
            grpo: What is optimized, and in which portions.
            sampling: How completions are drawn in training.
            optimizer: Makes the optimizer for the adapter's weights.
            schedule: Learning rate over the run, counted in optimizer steps.
            evaluation: How held-out clips are answered and what is kept of it.
        """
        super().__init__(
            reasoner,
            grounder=grounder,
            propagator=propagator,
            rewards=rewards or {},
            optimizer=optimizer,
            schedule=schedule,
            evaluation=evaluation,
            engine=build_engine(grpo),
            max_new_tokens=sampling.max_new_tokens,
        )
        self.automatic_optimization = False
        self.grpo = grpo
        self.sampling = sampling
        self.self_check = SelfCheck(every=grpo.check_every)
        self.updates_per_batch = grpo.updates_per_rollout
        self.num_tokens = 0
        self.last_groups: tuple[GroupRecord, ...] = ()

    def setup(self, stage: str) -> None:
        """Refuse, before any weights are read, what cannot be trained.

        Raises:
            ConfigError: There is no reward, or the precision is not one to train in.
        """
        if stage != "fit":
            return
        if not self.suite.terms:
            raise ConfigError(
                "rewards: expected at least one reward with a weight other than 0, found none. "
                "Name one, as in --rewards.format FormatReward."
            )
        refuse_scaling(str(self.trainer.precision))
        refuse_half_adapter(str(self.trainer.precision))

    def training_step(self, batch: list[Clip], batch_idx: int) -> None:
        """One rollout of every clip in the batch, and the updates on it.

        Args:
            batch: Clips of this process; the same number on every process.
            batch_idx: Not used; steps are counted by `rollout_step`.

        Raises:
            ConfigError: The data module serves right answers in place of clips.
        """
        if any(isinstance(item, Lesson) for item in batch):
            raise ConfigError("GRPO takes clips, but the data serve right answers. Set --data.answers null.")
        step = self.rollout_step
        self.clock.lap()
        with self.reasoner.gathered():
            with self.clock.phase("rollout"):
                repeats = self._repeats(batch)
                requests = [self._request(clip, step, repeat) for clip, repeat in zip(batch, repeats, strict=True)]
                completions, groups = self.answer(requests, batch, self.sampling)
            with self.clock.phase("System 2"):
                groups = self.look_closer(groups, self.suite.needs)
        with self.clock.phase("rewards"):
            outputs = [output for group in self.clock.through(groups) for output in self.suite.score([group])]
        prompts = [request.encoded for request in requests]
        own = StepTable.of(groups, [o.totals for o in outputs], [p.embeddings.shape[1] for p in prompts])
        with self.clock.phase("exchange"):
            table = StepTable.unpack(self._gather(own.pack()))
            earned = self._reward_metrics(outputs)
        advantages = self._mine(group_advantages(table.totals, scale_rewards=self.grpo.scale_rewards), len(batch))
        self.last_groups = tuple(
            GroupRecord(tuple(group), output, tuple(row))
            for group, output, row in zip(groups, outputs, advantages.tolist(), strict=True)
        )
        judged = [PromptGroup(*row) for row in zip(prompts, map(tuple, completions), advantages, strict=True)]
        # Dropout, if there is any, must not depend on what a resumed process has drawn before.
        torch.manual_seed(
            noise_key(seed=self.sampling.noise_seed, rollout_step=step, sample_id="update", index=self.global_rank)
        )
        with self.clock.phase("update"), self.reasoner.gathered_ends():
            metrics = self._update(judged, table)
        self.num_tokens += table.tokens()
        metrics |= table.metrics() | earned | self.clock.lap()
        metrics |= {"num_tokens": float(self.num_tokens), "rollout_step": float(step)}
        for name, value in metrics.items():
            if not math.isnan(value):  # such as the mean of a term that applied to no rollout
                self.log(name, value, prog_bar=name in _ON_THE_BAR, batch_size=len(batch))

    def _repeats(self, clips: Sequence[Clip]) -> list[int]:
        """For each clip, how often it stands earlier in the global batch, whose places the processes take in turn."""
        names = [noise_key(seed=0, rollout_step=0, sample_id=clip.id, index=0) for clip in clips]
        places = self._gather(torch.tensor(names)).reshape(-1, len(clips)).T.flatten().tolist()
        mine = range(self.global_rank, len(places), self.trainer.world_size)
        return [places[:place].count(places[place]) for place in mine]

    def _request(self, clip: Clip, step: int, repeat: int) -> SampleRequest:
        """Encode a clip, and name the noise of its completions; those of a repeated clip are counted on."""
        self.clock.look_at(clip.id)
        encoded: EncodedPrompt = self.reasoner.encode(self.reasoner.prepare(clip))
        first = repeat * self.grpo.group_size
        keys = [
            noise_key(seed=self.sampling.noise_seed, rollout_step=step, sample_id=clip.id, index=index)
            for index in range(first, first + self.grpo.group_size)
        ]
        return SampleRequest(encoded, keys)

    def _gather(self, rows: Shaped[Tensor, "rows *rest"]) -> Shaped[Tensor, "every_row *rest"]:
        """Rows of all processes, process by process."""
        gathered = self.all_gather(rows.to(self.device))
        if not isinstance(gathered, Tensor):
            raise TypeError(f"expected all processes to give tensors, found {type(gathered).__name__}")
        return gathered.reshape(-1, *rows.shape[1:])

    def _mine(self, rows: Float[Tensor, "every_row *rest"], count: int) -> Float[Tensor, "rows *rest"]:
        """This process's share of gathered rows."""
        return rows[self.global_rank * count : (self.global_rank + 1) * count]

    def _reward_metrics(self, outputs: Sequence[RewardOutput]) -> dict[str, float]:
        """Mean and spread of every reward term over all processes."""
        summary = summarize(outputs)
        sums = torch.from_numpy(summary.sums())[None]
        return summary.with_sums(self._gather(sums).sum(dim=0).cpu().numpy()).metrics()

    def _update_size(self, groups: Sequence[PromptGroup], table: StepTable) -> UpdateSize:
        tokens = table.trained_tokens(mask_truncated=self.grpo.mask_truncated)
        return UpdateSize(
            rollouts=len(groups) * self.grpo.group_size,
            tokens=float(self._mine(tokens, len(groups)).sum()),
            tokens_per_process=float(tokens.sum()) / self.trainer.world_size,
            max_new_tokens=self.sampling.max_new_tokens,
        )

    def _worth_training(self, groups: Sequence[PromptGroup], table: StepTable) -> list[PromptGroup]:
        """Groups with spread; others fill up to the number that the busiest process has, and to one at least."""
        with_spread = ~has_no_spread(table.totals).reshape(self.trainer.world_size, len(groups))
        return worth_training(groups, count=max(1, int(with_spread.sum(dim=1).max())))

    def _cut(self, groups: Sequence[PromptGroup]) -> list[MicroBatch]:
        """Micro-batches, as many as the busiest process needs: processes wait for each other in each of them."""
        micros = cut(self.engine, groups, self.grpo)
        busiest = int(self._gather(torch.tensor([len(micros)])).max())
        return micros if busiest == len(micros) else cut(self.engine, groups, self.grpo, at_least=busiest)

    def _update(self, groups: Sequence[PromptGroup], table: StepTable) -> dict[str, float]:
        """All optimizer steps on one rollout.

        Every process runs the same number of backward passes, at least one, whatever its groups are worth: processes
        wait for each other in it.
        """
        optimizer = cast(LightningOptimizer, self.optimizers())
        scheduler = cast(LambdaLR, self.lr_schedulers())
        learning_rate = optimizer.param_groups[0]["lr"]
        size = self._update_size(groups, table)
        if self.grpo.skip_zero_advantage:
            groups = self._worth_training(groups, table)
        micros, temperature = self._cut(groups), self.sampling.scale
        references = [
            reference_logprobs(self.engine, self.reasoner, micro, temperature=temperature) if self.grpo.beta else None
            for micro in micros
        ]
        asked = CheckedUpdate(groups, micros, references, temperature)
        self.self_check(self.engine, self.reasoner, asked, self.rollout_step)
        packed, norms = [], []
        for _ in range(self.grpo.updates_per_rollout):
            stats: list[LossStats] = []
            for micro, reference in zip(micros, references, strict=True):
                self.clock.look_at(*(request.encoded.clip_id for request in micro.requests))
                output = micro_batch_loss(
                    self.engine,
                    self.reasoner,
                    micro,
                    reference=reference,
                    settings=self.grpo,
                    size=size,
                    temperature=temperature,
                )
                stats.append(output.stats)
                with gradient_sync(self.trainer.model, enabled=len(stats) == len(micros)):
                    self.manual_backward(output.loss)
            norms.append(clip_gradients(self.trained_parameters, self.grpo.max_grad_norm))
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()
            packed.append(sum(stats[1:], stats[0]).pack())
        metrics = loss_metrics(self._gather(torch.stack(packed)), has_kl=self.grpo.beta > 0)
        return metrics | {"grad_norm": sum(norms) / len(norms), "lr": learning_rate}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave the frozen weights out, and keep the token count and what rollouts are counted by."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["num_tokens"] = self.num_tokens
        checkpoint["updates_per_rollout"] = self.updates_per_batch

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint that does not hold the whole adapter, and go on counting tokens.

        Raises:
            ConfigError: The adapter does not fit, or a training would go on with other updates per rollout: rollouts
                are counted by updates, and the noise of each is named by its number.
        """
        super().on_load_checkpoint(checkpoint)
        updates = checkpoint.get("updates_per_rollout", self.updates_per_batch)
        if self._is_training and updates != self.updates_per_batch:
            raise ConfigError(
                f"model.grpo.updates_per_rollout is {self.updates_per_batch}, but the run that is resumed has "
                f"{updates}. Set --model.grpo.updates_per_rollout {updates}, or start a new run from its adapter "
                "(--model.reasoner.adapter)."
            )
        self.num_tokens = int(checkpoint.get("num_tokens", 0))
