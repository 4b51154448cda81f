"""Compare an engine with the plain one on what a run really computes, before it is trained on.

An engine that shares work can be wrong in ways that no metric shows: on the first update the ratio is 1 whatever the
log-probabilities are. So one group of each of the first batches of a run is scored twice, and the numbers that sampling
remembered are held against both. A difference beyond rounding stops the run.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from datamodules.errors import RunError
from grpo.engine import Engine, PlainEngine, ScoreRequest
from grpo.rollout import evaluation_mode
from grpo.update import PromptGroup
from models.reasoner import Reasoner

WORST = 1e-3
"""Largest difference of a log-probability in float32, nats; rounding stays below 1e-5 in small models."""

MEAN_HALF = 0.05
"""Largest mean difference in bfloat16 or float16, nats, where single tokens may differ by some tenths."""

PLACE_HALF = 0.5
"""There too, largest difference at one place of the completions, such as their first token, in the mean over them.

Over a long completion a fault at one token vanishes in the mean; over completions rounding does, and a fault does not.
"""

FIRST_CHECKS = 2
"""How many rollouts are checked unasked: a fresh adapter changes nothing, so in the first one nothing of it is seen."""


@dataclass
class SelfCheck:
    """Checks the first rollouts that it is shown, and every so many afterwards.

    Attributes:
        every: Rollout steps between two checks; 0 leaves it at the first ones.
        checked: Checks so far.
    """

    every: int = 0
    checked: int = 0

    def __call__(
        self, engine: Engine, reasoner: Reasoner, group: PromptGroup, step: int, *, temperature: float
    ) -> None:
        """Check a group if it is time, and do nothing for the plain engine.

        Args:
            engine: What is checked.
            reasoner: The policy that sampled the group.
            group: The completions of one prompt.
            step: Rollout step.
            temperature: The one they were sampled with.

        Raises:
            RunError: The engine disagrees with the plain one, or sampling with scoring.
        """
        is_due = self.checked < FIRST_CHECKS or (self.every > 0 and step % self.every == 0)
        if isinstance(engine, PlainEngine) or not is_due:
            return
        check_engine(engine, reasoner, group, temperature=temperature)
        self.checked += 1


@torch.no_grad()
def check_engine(engine: Engine, reasoner: Reasoner, group: PromptGroup, *, temperature: float) -> None:
    """Compare scores of an engine with those of the plain one, and with what was remembered when sampling.

    The plain engine scores one completion at a time, so that it needs no more memory than a row.

    Raises:
        RunError: As in `SelfCheck`.
    """
    encoded, completions = group.encoded, group.completions
    with evaluation_mode(reasoner):
        found = engine.score(
            reasoner, [ScoreRequest(encoded, [completion.ids for completion in completions])], temperature=temperature
        ).logprobs
        plain = [
            PlainEngine().score(reasoner, [ScoreRequest(encoded, [completion.ids])], temperature=temperature).logprobs
            for completion in completions
        ]
    packed = [row[: len(completion.ids)].cpu() for row, completion in zip(found, completions, strict=True)]
    sampled = [completion.logprobs for completion in completions]
    is_half = _computes_in_half(reasoner)
    where = f"clip {encoded.clip_id}"
    _compare(("scored together", packed), ("one by one", [row[0].cpu() for row in plain]), where, is_half=is_half)
    _compare(("when sampled", sampled), ("when scored", packed), where, is_half=is_half)


def _compare(
    left: tuple[str, list[Float[Tensor, "_"]]],
    right: tuple[str, list[Float[Tensor, "_"]]],
    where: str,
    *,
    is_half: bool,
) -> None:
    rows = [(ours - theirs).abs() for ours, theirs in zip(left[1], right[1], strict=True)]
    ours, theirs, difference = torch.cat(left[1]), torch.cat(right[1]), torch.cat(rows)
    measured = [(difference.max(), WORST, "largest")]
    if is_half:
        places = pad_sequence(rows, batch_first=True).mean(dim=0)
        measured = [(difference.mean(), MEAN_HALF, "mean"), (places.max(), PLACE_HALF, "mean at one place: largest")]
    # Written so that a value that is no number fails as well.
    wrong = [row for row in measured if not row[0] <= row[1]]
    if not wrong:
        return
    value, limit, kind = wrong[0]
    worst = int(difference.nan_to_num(nan=torch.inf).argmax())
    raise RunError(
        f"expected the same log-probabilities {left[0]} and {right[0]}, found {ours[worst]:.4f} and "
        f"{theirs[worst]:.4f} nats at token {worst} of the completions of {where} ({kind} difference {value:.2g}, "
        f"at most {limit} is rounding). Train with --model.grpo.engine plain, which is slower and shares nothing, and "
        "report this."
    )


def _computes_in_half(reasoner: Reasoner) -> bool:
    is_mixed = torch.is_autocast_enabled(reasoner.device.type)
    return is_mixed or reasoner.embed_tokens.weight.dtype in (torch.bfloat16, torch.float16)
