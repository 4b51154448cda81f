"""Sampling noise that is a pure function of who asks: seed, rollout step, sample, index in the group, token position.

Gumbel-max turns sampling into an argmax: with independent standard Gumbel noise g, ``argmax(logits / T + g)`` is a draw
from ``softmax(logits / T)``. If the noise depends on nothing but its name, then so does the token: not on the batch a
row sits in, not on the rank that computes it, not on what was drawn before. A run that is resumed, spread over more
processes or sampled by another implementation draws the same completions.

A completion's name is hashed to 64 bits. The position moves along SplitMix64's sequence from there, and its integer
finaliser mixes the result, and once more what comes of it with the vocabulary entry. That is integer arithmetic modulo
2**64, the same on every device; only the two logarithms at the end are floating point, taken in float64 and rounded to
float32.

Reference:
    Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014 (SplitMix64); Maddison, Tarlow,
    Minka, "A* sampling", NeurIPS 2014 (Gumbel-max).
"""

from __future__ import annotations

import hashlib

import torch
from jaxtyping import Float32, Float64, Int64
from torch import Tensor

# The constants of SplitMix64, written as signed 64-bit integers, which is what torch has; overflow wraps around.
_STEP = 0x9E3779B97F4A7C15 - 2**64
_FIRST = 0xBF58476D1CE4E5B9 - 2**64
_SECOND = 0x94D049BB133111EB - 2**64


def noise_key(*, seed: int, rollout_step: int, sample_id: str, index: int) -> int:
    """Name of one completion's noise.

    The rank is left out on purpose: whoever samples this completion samples the same one.

    Args:
        seed: The run's seed, any integer.
        rollout_step: Which rollout of the run, so that a clip that comes again is sampled afresh.
        sample_id: The clip's id, unique in its data set.
        index: Position of the completion in its group, 0..G-1; where one step asks a clip again, the next group
            counts on from G, so that it is no copy.

    Returns:
        A well-mixed signed 64-bit integer; stable between processes, machines and Python versions.
    """
    name = f"{seed}/{rollout_step}/{index}/{sample_id}"
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little", signed=True)


def uniform_noise(
    keys: Int64[Tensor, "rows"], positions: Int64[Tensor, "rows"], vocabulary: int
) -> Float64[Tensor, "rows vocab"]:
    """Independent uniform numbers for every row and vocabulary entry.

    Args:
        keys: `noise_key` of each row.
        positions: Token position in the row's completion, from 0.
        vocabulary: Entries per row.

    Returns:
        Values strictly between 0 and 1, on a grid of 2**-52; never 0 or 1, so that logarithms are finite.
    """
    rows = _mix(keys + positions * _STEP)
    entries = _mix(torch.arange(1, vocabulary + 1, device=keys.device) * _STEP)
    bits = _shift(_mix(rows[:, None] ^ entries), 12)
    return bits.double().add_(0.5).mul_(2.0**-52)


def gumbel_noise(
    keys: Int64[Tensor, "rows"], positions: Int64[Tensor, "rows"], vocabulary: int
) -> Float32[Tensor, "rows vocab"]:
    """Independent standard Gumbel noise for every row and vocabulary entry; arguments as in `uniform_noise`.

    Returns:
        Finite values, at most 37; the upper tail, which decides rare draws, has the full resolution of float64.
    """
    return uniform_noise(keys, positions, vocabulary).log_().neg_().log_().neg_().float()


def _mix(bits: Int64[Tensor, "*shape"]) -> Int64[Tensor, "*shape"]:
    """A bijection of 64-bit integers in which every input bit changes about half of the output bits."""
    bits = _shift(bits, 30).bitwise_xor_(bits).mul_(_FIRST)
    bits = _shift(bits, 27).bitwise_xor_(bits).mul_(_SECOND)
    return _shift(bits, 31).bitwise_xor_(bits)


def _shift(bits: Int64[Tensor, "*shape"], places: int) -> Int64[Tensor, "*shape"]:
    """Shift right and fill with zeros; torch's own shift copies the sign."""
    return (bits >> places).bitwise_and_(2 ** (64 - places) - 1)
