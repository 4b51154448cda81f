"""Groups of plans that a policy really gave: the embedded reasoner, asked about held-out clips as a run asks it."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import torch
import yaml

from datamodules.modules import RefAVSDataModule
from datamodules.records import Clip, Plan
from grpo.engine import SampleRequest
from grpo.noise import noise_key
from grpo.sampling import Sampling
from grpo.shared_engine import SharedEngine
from models.plan import parse_plan
from models.reasoner import Reasoner

CONFIG = Path(__file__).parents[2] / "configs" / "refavs.yaml"
"""The run whose frames are shown and whose sampling is used."""


def sampled_groups(clips: int, group: int) -> list[tuple[Clip, list[Plan]]]:
    """Clips of the generated RefAVS benchmark whose target is there, each with `group` sampled plans.

    Args:
        clips: How many, at most.
        group: Completions of each.
    """
    config = yaml.safe_load(CONFIG.read_text())
    model, data = config["model"]["init_args"], config["data"]["init_args"]
    start = model["reasoner"]["init_args"]
    reasoner = Reasoner(start["path"], template=start["template"])
    reasoner.load()
    reasoner.eval()
    module = RefAVSDataModule(**data | {"val_size": clips, "val_null_fraction": 0.0})
    module.prepare_data()
    module.setup("validate")
    sampling = Sampling(**model["sampling"])
    held_out = [clip for batch in module.val_dataloader() for clip in batch]
    return [(clip, sample_plans(reasoner, clip, group, sampling)) for clip in held_out]


@torch.no_grad()
def sample_plans(reasoner: Reasoner, clip: Clip, group: int, sampling: Sampling) -> list[Plan]:
    """Plans of one clip's completions."""
    keys = [noise_key(seed=sampling.noise_seed, rollout_step=0, sample_id=clip.id, index=n) for n in range(group)]
    request = SampleRequest(reasoner.encode(reasoner.prepare(clip)), keys)
    texts = [reasoner.decode(one.ids) for one in SharedEngine().sample(reasoner, [request], sampling)[0]]
    frames = clip.frames
    return [
        parse_plan(text, fps=frames.fps, frames=frames.count, max_keyframes=reasoner.max_keyframes) for text in texts
    ]


def unseen(clip: Clip) -> Clip:
    """The same clip, of which System 2 remembers nothing: it keeps features by the identity of the frames."""
    return replace(clip, frames=copy.copy(clip.frames))
