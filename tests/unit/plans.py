"""Sizes and workloads that memory plans are made of."""

from models.memory import Workload
from models.sizes import ReasonerSizes
from models.system2_memory import Segmenter

SEVEN = ReasonerSizes(
    decoder=6_525_618_176,
    ends=1_146_088_192,
    towers=1_260_107_520,
    adapter=161_480_704,
    layers=28,
    hidden=3584,
    feed_forward=18_944,
    key_value=512,
    rank=64,
    vocabulary=152_064,
    patch=28,
    frames_per_token=2,
)
"""Qwen2.5-Omni-7B with an adapter of rank 64, as `measure` counts it."""

LOAD = Workload(prompt_tokens=1490, segmenter=Segmenter("large"))
"""One prompt of RefAVS on one device."""
