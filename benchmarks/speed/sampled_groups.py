"""Groups of plans that a policy really gave: the embedded reasoner, asked about held-out clips as a run asks it."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch

from datamodules.modules import RefAVSDataModule
from datamodules.records import Clip, Plan
from grpo.engine import SampleRequest
from grpo.noise import noise_key
from grpo.sampling import Sampling
from grpo.shared_engine import SharedEngine
from models.plan import parse_plan
from models.reasoner import Reasoner

SAMPLING = Sampling(max_new_tokens=192, temperature=1.0, top_p=0.95)
"""As `configs/refavs.yaml` says."""


def sampled_groups(clips: int, group: int) -> list[tuple[Clip, list[Plan]]]:
    """Clips of the generated RefAVS benchmark whose target is there, each with `group` sampled plans.

    Args:
        clips: How many, at most.
        group: Completions of each.
    """
    reasoner = Reasoner("weights/tiny/reasoner", template="short")
    reasoner.load()
    reasoner.eval()
    data = RefAVSDataModule(
        val_size=clips, val_null_fraction=0.0, glance_frames=10, glance_max_pixels=112**2, close_up_max_pixels=224**2
    )
    data.prepare_data()
    data.setup("validate")
    return [(clip, sample_plans(reasoner, clip, group)) for batch in data.val_dataloader() for clip in batch]


@torch.no_grad()
def sample_plans(reasoner: Reasoner, clip: Clip, group: int) -> list[Plan]:
    """Plans of one clip's completions."""
    keys = [noise_key(seed=SAMPLING.noise_seed, rollout_step=0, sample_id=clip.id, index=n) for n in range(group)]
    request = SampleRequest(reasoner.encode(reasoner.prepare(clip)), keys)
    texts = [reasoner.decode(one.ids) for one in SharedEngine().sample(reasoner, [request], SAMPLING)[0]]
    frames = clip.frames
    return [
        parse_plan(text, fps=frames.fps, frames=frames.count, max_keyframes=reasoner.max_keyframes) for text in texts
    ]


def unseen(clip: Clip) -> Clip:
    """The same clip, of which System 2 remembers nothing: it keeps features by the identity of the frames."""
    return replace(clip, frames=copy.copy(clip.frames))
