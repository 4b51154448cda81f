"""Which frames stand for a longer clip: the one rule that glances, clips of benchmarks and video files share."""

from __future__ import annotations


def spread(total: int, wanted: int | None) -> tuple[int, ...]:
    """Pick frames evenly over a clip, so that each is the one on screen at its time.

    Frame k of n picked ones is frame ``floor(k * total / n)``. It is what a viewer sees at the time ``k / fps`` of the
    picked frames when their pace is lowered to ``fps = n / total`` of the clip's, which keeps the clip's length. The
    first frame is always picked; the last one is not, as it is on screen after the last of these times.

    Args:
        total: Frames of the clip, at least 1.
        wanted: How many to pick, at least 1; None, or as many as there are, picks all.

    Returns:
        Rising indices in ``0..total - 1``.
    """
    kept = total if wanted is None else min(total, wanted)
    return tuple(index * total // kept for index in range(kept))
