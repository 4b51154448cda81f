"""The engine that computes once what completions share: their prompt.

Sampling reads every prompt once and writes the rows of many prompts together (`grpo.shared_rollout`); scoring puts
every prompt once into a row with all its completions (`grpo.packing`). Both give what `grpo.engine.PlainEngine` gives.
"""

from __future__ import annotations

from collections.abc import Sequence

from grpo.decoder import Decoder, ExactDecoder
from grpo.engine import Engine, SampleRequest, ScoreRequest
from grpo.logprobs import TokenLogprobs
from grpo.packing import packed_logprobs
from grpo.rollout import Completion, evaluation_mode
from grpo.rollout_weights import rollout_weights
from grpo.sampling import Sampling
from grpo.shared_rollout import shared_rollout
from grpo.static_decoder import StaticDecoder
from models.reasoner import Reasoner


class SharedEngine(Engine):
    """Every prompt is computed once, whatever its completions are."""

    def __init__(self, *, rollout_rows: int = 64, merge_adapter: bool | None = None) -> None:
        """Keep the settings.

        Args:
            rollout_rows: Most completions that are sampled at a time; a larger group is sampled alone.
            merge_adapter: Sample from a copy of the weights that the adapter is folded into; None does so where
                nothing is lost by it (`grpo.rollout_weights`).
        """
        self.rollout_rows = rollout_rows
        self.merge_adapter = merge_adapter

    def sample(
        self, reasoner: Reasoner, requests: Sequence[SampleRequest], sampling: Sampling
    ) -> list[list[Completion]]:
        """Sample all groups together; see `grpo.shared_rollout.shared_rollout`."""
        with evaluation_mode(reasoner):
            decoder = self._decoder(reasoner, requests, sampling)
            return shared_rollout(decoder, requests, sampling, end_ids=reasoner.end_of_turn_ids, device=reasoner.device)

    def score(self, reasoner: Reasoner, requests: Sequence[ScoreRequest], *, temperature: float) -> TokenLogprobs:
        """Score all completions in one row; see `grpo.packing.packed_logprobs`."""
        return packed_logprobs(reasoner, requests, temperature=temperature)

    def tokens(self, prompt: int, completions: Sequence[int]) -> int:
        """The prompt once, and the completions without their last tokens."""
        return prompt + sum(completions) - len(completions)

    def _decoder(self, reasoner: Reasoner, requests: Sequence[SampleRequest], sampling: Sampling) -> Decoder:
        """Fixed shapes on a GPU, where they let all kernels of a step be launched at once; exact ones elsewhere.

        Weights that come and go while a step runs cannot be launched with it.
        """
        weights = rollout_weights(reasoner, merge=self.merge_adapter)
        if reasoner.device.type != "cuda" or reasoner.visited is not None:
            return ExactDecoder(weights, max_rows=self.rollout_rows, max_new_tokens=sampling.max_new_tokens)
        rows = max(len(request.keys) for request in requests)
        return StaticDecoder(
            weights,
            groups=min(len(requests), max(1, self.rollout_rows // rows)),
            rows_per_group=rows,
            max_prompt=max(request.encoded.embeddings.shape[1] for request in requests),
            max_new_tokens=sampling.max_new_tokens,
        )
