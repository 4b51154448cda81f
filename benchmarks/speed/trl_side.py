"""One step of TRL's GRPOTrainer, split into the same parts as ours.

The trainer is the released one. Its methods are timed from outside, and completions end where they are told to. On a
CPU its output head would score all positions of a row, because it picks the completion's on Triton devices only; here
it picks them everywhere, as it would on a GPU. That goes by a name that is private to TRL, so it is checked that TRL
asks.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import trl
import trl.trainer.utils
from datasets import Dataset
from peft import LoraConfig
from torch import Tensor
from transformers import LogitsProcessor, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from models.reasoner import LoRA
from speed.laps import Laps
from speed.prompts import Conversation

TRL_PARTS = {
    "_tokenize_prompts": "process",
    "_generate_single_turn": "generate",
    "_generate_and_score_completions": "sample and score",
    "training_step": "step",
}


class CompletionsOnly:
    """Answers TRL's question whether a device has Triton, which is whether its head skips the prompt.

    Attributes:
        is_asked: Whether it has been asked.
    """

    is_asked = False

    def __call__(self, device: torch.device) -> bool:
        """Always yes."""
        self.is_asked = True
        return True


@dataclass(frozen=True)
class TrlSettings:
    """What TRL is told.

    Attributes:
        lengths: Tokens of each completion of a group, the end of turn included.
        beta: Weight of the KL penalty.
        lora: The adapter.
        has_static_cache: Whether generation uses the static cache instead of the default one.
        checkpointing: Whether activations are recomputed in the backward pass.
        steps: How many steps to take.
    """

    lengths: Sequence[int]
    beta: float
    lora: LoRA
    has_static_cache: bool
    checkpointing: bool
    steps: int


class EndAt(LogitsProcessor):
    """Make an end of turn impossible before its place and certain there."""

    def __init__(self, lengths: Sequence[int], prompt: int, end_id: int) -> None:
        """Keep the places.

        Args:
            lengths: Tokens of each row, the end of turn included.
            prompt: Tokens of the prompt.
            end_id: The end of turn.
        """
        self.lengths = torch.tensor(lengths)
        self.prompt = prompt
        self.end_id = end_id

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Steer one step; rows that have ended are padded anyway."""
        is_last = (self.lengths == input_ids.shape[1] - self.prompt + 1).to(scores.device)
        is_end = torch.arange(scores.shape[-1], device=scores.device) == self.end_id
        return scores.masked_fill(is_end != is_last[:, None], float("-inf"))


class TimedTrainer(GRPOTrainer):  # type: ignore[misc]
    """The released trainer with a clock around its parts.

    Attributes:
        laps: The clock.
        completions_only: What its head asks.
    """

    laps: Laps
    completions_only: CompletionsOnly

    def _get_per_token_logps_and_entropies(self, *args: Any, **more: Any) -> Any:
        with self.laps.part("forward" if torch.is_grad_enabled() else "reference"):
            found = super()._get_per_token_logps_and_entropies(*args, **more)
        if not self.completions_only.is_asked:
            raise RuntimeError(_not_asked("the forward pass did not ask it"))
        return found


def _timed(method: str, part: str) -> Callable[..., Any]:
    def call(self: TimedTrainer, *args: Any, **more: Any) -> Any:
        with self.laps.part(part):
            return getattr(GRPOTrainer, method)(self, *args, **more)

    return call


for _method, _part in TRL_PARTS.items():
    setattr(TimedTrainer, _method, _timed(_method, _part))


def run_trl(
    model: Any,
    processor: Any,
    conversations: Sequence[Conversation],
    settings: TrlSettings,
    *,
    reward: Callable[[list[str]], list[float]],
    device: torch.device,
    after_step: Callable[[int, dict[str, float]], None],
) -> GRPOTrainer:
    """Train on some prompts, one per step.

    Args:
        model: Without adapter; is wrapped.
        processor: Its processor.
        conversations: One per step.
        settings: What TRL is told.
        reward: Texts of a group to rewards.
        device: Where to train.
        after_step: Called with the step's number, from 0, and its seconds: "process", "generate", "reward and rest",
            "reference", "forward", "backward".

    Returns:
        The trainer when it is done.
    """
    trainer = make_trainer(model, processor, conversations, settings, reward=reward, device=device)

    class Hand(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            trainer.laps.take()

        def on_step_end(self, _: Any, state: Any, *__: Any, **___: Any) -> None:
            expected = sum(settings.lengths) / len(settings.lengths)
            found = trainer._metrics["train"]["completions/mean_length"][-1]
            if found != expected:
                raise RuntimeError(f"expected completions of {expected} tokens in the mean, found {found}")
            after_step(state.global_step - 1, _split(trainer.laps.take()))

    trainer.add_callback(Hand())
    trainer.train()
    return trainer


def make_trainer(
    model: Any,
    processor: Any,
    conversations: Sequence[Conversation],
    settings: TrlSettings,
    *,
    reward: Callable[[list[str]], list[float]],
    device: torch.device,
) -> TimedTrainer:
    """The trainer, ready to train; see `run_trl`.

    Raises:
        RuntimeError: This release of TRL cannot be told to score completion positions only.
    """
    completions_only = score_completions_only()
    group, longest = len(settings.lengths), max(settings.lengths)
    config = GRPOConfig(
        tempfile.mkdtemp(),
        per_device_train_batch_size=group,
        num_generations=group,
        max_completion_length=longest,
        beta=settings.beta,
        cache_implementation="static" if settings.has_static_cache else None,
        learning_rate=1e-5,
        max_steps=settings.steps,
        use_cpu=device.type == "cpu",
        bf16=False,
        gradient_checkpointing=settings.checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False} if settings.checkpointing else None,
        logging_steps=1,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        shuffle_dataset=False,
    )
    lora = LoraConfig(
        r=settings.lora.r,
        lora_alpha=settings.lora.alpha,
        target_modules=settings.lora.target_modules,
        task_type="CAUSAL_LM",
    )

    def judge(completions: list[list[dict[str, str]]], **_: Any) -> list[float]:
        return reward([turns[0]["content"] for turns in completions])

    trainer = TimedTrainer(
        model=model,
        reward_funcs=judge,
        args=config,
        train_dataset=Dataset.from_list([_row(conversation) for conversation in conversations]),
        processing_class=processor,
        peft_config=lora,
    )
    trainer.laps, trainer.completions_only = Laps(device), completions_only
    _end_at(trainer, settings.lengths, processor.tokenizer.eos_token_id)
    return trainer


def score_completions_only() -> CompletionsOnly:
    """Let TRL's head skip the prompt on every device.

    Raises:
        RuntimeError: This release has no such question.
    """
    if not hasattr(trl.trainer.utils, "_use_triton"):
        raise RuntimeError(_not_asked("there is none"))
    answer = CompletionsOnly()
    trl.trainer.utils._use_triton = answer
    return answer


def _not_asked(found: str) -> str:
    return (
        "expected TRL's output head to ask trl.trainer.utils._use_triton whether to skip the prompt, but in TRL "
        f"{trl.__version__} {found}, and a comparison would make TRL look slower than it is. Install trl>=1.16,<1.17."
    )


def repeated(inputs: dict[str, Tensor], rows: int) -> dict[str, Tensor]:
    """A prompt once per completion, as TRL feeds it: tokens and images alike."""
    return {name: value.repeat(rows, *([1] * (value.ndim - 1))) for name, value in inputs.items()}


def _row(conversation: Conversation) -> dict[str, Any]:
    *images, text = conversation[0]["content"]
    row: dict[str, Any] = {"prompt": [{"role": "user", "content": text["text"]}]}
    return row | ({"images": [part["image"] for part in images]} if images else {})


def _end_at(trainer: TimedTrainer, lengths: Sequence[int], end_id: int) -> None:
    """Let every generation of the trainer's model end at the given lengths."""
    base = trainer.model.get_base_model()
    generate = base.generate

    def ending(*args: Any, **more: Any) -> Any:
        prompt = more["input_ids"].shape[1]
        return generate(*args, logits_processor=[EndAt(lengths, prompt, end_id)], **more)

    base.generate = ending


def _split(seconds: dict[str, float]) -> dict[str, float]:
    """Parts that do not overlap; the optimizer is outside of TRL's step and in neither side's."""
    sampled = seconds["sample and score"]
    inner = sum(seconds.get(name, 0.0) for name in ("process", "generate", "reference"))
    return {
        "process": seconds["process"],
        "generate": seconds["generate"],
        "reference": seconds.get("reference", 0.0),
        "reward and rest": sampled - inner,
        "forward": seconds["forward"],
        "backward": seconds["step"] - sampled - seconds["forward"],
    }
