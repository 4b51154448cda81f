"""Compare an engine with the plain one on what a run really computes, before it is trained on.

An engine that shares work can be wrong in ways that no metric shows: on the first update the ratio is 1 whatever the
log-probabilities are. So in the first rollouts of a run the micro-batches are scored once before they are trained on,
in the very rows that the update will see. What comes out is held against the numbers that sampling remembered; that of
one group, and the reference of one completion, against the plain engine. A difference beyond rounding stops the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float32, Int64
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from datamodules.errors import RunError
from grpo import chunked
from grpo.engine import Engine, PlainEngine
from grpo.logprobs import token_logprobs
from grpo.rollout import evaluation_mode
from grpo.update import MicroBatch, PromptGroup
from models.processing import EncodedPrompt
from models.reasoner import Reasoner

Values = Float32[Tensor, "tokens"]

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


@dataclass(frozen=True)
class CheckedUpdate:
    """What an update is about to train on.

    Attributes:
        groups: All completions.
        micros: The same as `grpo.update.cut` has cut them.
        references: Log-probabilities of each micro-batch under the base model; None with beta 0.
        temperature: The one they were sampled with.
    """

    groups: Sequence[PromptGroup]
    micros: Sequence[MicroBatch]
    references: Sequence[Float32[Tensor, "rollouts tokens"] | None]
    temperature: float


@dataclass
class SelfCheck:
    """Checks the first rollouts that it is shown, and every so many afterwards.

    Attributes:
        every: Rollout steps between two checks; 0 leaves it at the first ones.
        checked: Checks so far.
    """

    every: int = 0
    checked: int = 0

    def __call__(self, engine: Engine, reasoner: Reasoner, update: CheckedUpdate, step: int) -> None:
        """Check an update if it is time, and do nothing for the plain engine.

        Args:
            engine: What is checked.
            reasoner: The policy that sampled the completions.
            update: What is about to be trained on.
            step: Rollout step.

        Raises:
            RunError: The engine disagrees with the plain one, or sampling with scoring.
        """
        is_due = self.checked < FIRST_CHECKS or (self.every > 0 and step % self.every == 0)
        if isinstance(engine, PlainEngine) or not is_due:
            return
        check_engine(engine, reasoner, update, turn=self.checked)
        self.checked += 1


@torch.no_grad()
def check_engine(engine: Engine, reasoner: Reasoner, update: CheckedUpdate, *, turn: int = 0) -> None:
    """Compare scores of an engine with those of the plain one, and with what was remembered when sampling.

    Every process makes the same number of passes, because in a spread model they wait for each other in each: one per
    micro-batch, one per completion of a group, and one for the reference. None is larger than those of the update.

    Args:
        engine: What is checked.
        reasoner: The policy that sampled the completions.
        update: What is about to be trained on.
        turn: Which group, and the reference of which micro-batch, is scored by the plain engine, counted in a circle.

    Raises:
        RunError: As in `SelfCheck`.
    """
    chosen, is_half = turn % len(update.groups), _computes_in_half(reasoner)
    with evaluation_mode(reasoner):
        rows = iter(_scored(engine, reasoner, update))
        packed = [[next(rows) for _ in group.completions] for group in update.groups]
        group = update.groups[chosen]
        alone = [_alone(reasoner, group.encoded, row.ids, update.temperature) for row in group.completions]
        together = ("scored together", packed[chosen])
        _compare(together, ("one by one", alone), _name(group.encoded), is_half=is_half)
        _check_reference(reasoner, update, turn, is_half=is_half)
    for group, scored in zip(update.groups, packed, strict=True):
        sampled = [completion.logprobs for completion in group.completions]
        _compare(("when sampled", sampled), ("when scored", scored), _name(group.encoded), is_half=is_half)


def _scored(engine: Engine, reasoner: Reasoner, update: CheckedUpdate) -> list[Values]:
    """What the engine says about every completion, in rows of the update."""
    found = []
    for micro in update.micros:
        scores = engine.score(reasoner, micro.requests, temperature=update.temperature)
        found += [row[mask].cpu() for row, mask in zip(scores.logprobs, scores.mask, strict=True)]
    return found


def _alone(reasoner: Reasoner, encoded: EncodedPrompt, ids: Int64[Tensor, "tokens"], temperature: float) -> Values:
    """One completion in the plain form, its logits in portions as large as those of the update."""
    chunk = max(1, chunked.CHUNK_ELEMENTS // len(reasoner.lm_head.weight))
    return token_logprobs(reasoner, encoded, [ids], temperature=temperature, chunk=chunk).logprobs[0].cpu()


def _check_reference(reasoner: Reasoner, update: CheckedUpdate, turn: int, *, is_half: bool) -> None:
    """The longest completion of the prompt that has all others of its row in front of it."""
    number = turn % len(update.micros)
    reference, request = update.references[number], update.micros[number].requests[-1]
    if reference is None:
        return
    lengths = [len(ids) for ids in request.completion_ids]
    longest = lengths.index(max(lengths)) - len(lengths)  # counted from the end, as in the row
    ids = request.completion_ids[longest]
    with reasoner.reference():
        alone = _alone(reasoner, request.encoded, ids, update.temperature)
    together = ("of the reference scored together", [reference[longest, : len(ids)].cpu()])
    _compare(together, ("one by one", [alone]), _name(request.encoded), is_half=is_half)


def _name(encoded: EncodedPrompt) -> str:
    return f"clip {encoded.clip_id}"


def _compare(
    left: tuple[str, list[Values]],
    right: tuple[str, list[Values]],
    where: str,
    *,
    is_half: bool,
) -> None:
    rows = [(ours - theirs).abs() for ours, theirs in zip(left[1], right[1], strict=True)]
    ours, theirs, difference = torch.cat(left[1]), torch.cat(right[1]), torch.cat(rows)
    measured = [(difference.max(), WORST, "largest")]
    if is_half:
        measured = [(difference.mean(), MEAN_HALF, "mean")]
    if is_half and len(rows) > 1:
        places = pad_sequence(rows, batch_first=True).mean(dim=0)
        measured.append((places.max(), PLACE_HALF, "mean at one place: largest"))
    # Written so that a value that is no number fails as well.
    wrong = [row for row in measured if not row[0] <= row[1]]
    if not wrong:
        return
    value, limit, kind = wrong[0]
    worst = int(difference.nan_to_num(nan=torch.inf).argmax())
    raise RunError(
        f"expected the same log-probabilities {left[0]} and {right[0]}, found {ours[worst]:.4f} and "
        f"{theirs[worst]:.4f} nats at token {worst} of the completions of {where} ({kind} difference {value:.2g}, "
        f"at most {limit} is rounding). Train with --model.grpo.engine plain, which is slower and scores every "
        "completion on its own, and report this."
    )


def _computes_in_half(reasoner: Reasoner) -> bool:
    is_mixed = torch.is_autocast_enabled(reasoner.device.type)
    return is_mixed or reasoner.embed_tokens.weight.dtype in (torch.bfloat16, torch.float16)
