"""Most answers of the embedded reasoner to every benchmark of the mixture, as that is configured, can be read."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from datamodules.mixture import MixtureDataModule, Source, Sources
from grpo.engine import SampleRequest
from grpo.sampling import Sampling
from grpo.shared_engine import SharedEngine
from models.plan import parse_plan
from models.reasoner import Reasoner

ROOT = Path(__file__).parents[3]
CONFIG: dict[str, Any] = yaml.safe_load((ROOT / "configs" / "mixture.yaml").read_text())
SIZES = {
    "refavs": {"train": 0, "val": 8, "test_s": 0, "test_u": 0, "test_n": 0, "null_train": 0, "null_val": 0},
    "revos": {"train": 40, "valid": 0},
    "mevis": {"train": 40, "valid_u": 0},
    "refcocog": {"train": 80},
}


@pytest.fixture(scope="module")
def reasoner() -> Reasoner:
    settings = CONFIG["model"]["init_args"]["reasoner"]["init_args"]
    reasoner = Reasoner(str(ROOT / settings["path"]), template=settings["template"])
    reasoner.load()
    return reasoner


@pytest.mark.parametrize("benchmark", SIZES)
def test_answers_to_every_benchmark_can_be_read(benchmark, reasoner, tmp_path):
    settings = CONFIG["data"]["init_args"]
    parts = {name: {**settings["sources"][name], "weight": float(name == benchmark)} for name in SIZES}
    parts[benchmark] |= {"train_size": 1, "avshapes_sizes": SIZES[benchmark]}
    sources = Sources(**{name: Source(**own) for name, own in parts.items()})
    data = MixtureDataModule(
        **{**settings, "sources": sources, "val_size": 8, "val_null_fraction": None, "avshapes_cache": str(tmp_path)}
    )
    data.prepare_data()
    data.setup("validate")
    clips = [clip for loader in data.val_dataloader() for batch in loader for clip in batch]
    requests = [SampleRequest(reasoner.encode(reasoner.prepare(clip)), [0]) for clip in clips]
    greedy = Sampling(max_new_tokens=CONFIG["model"]["init_args"]["sampling"]["max_new_tokens"], temperature=0.0)
    answers = SharedEngine().sample(reasoner, requests, greedy)

    texts = [reasoner.decode(group[0].ids) for group in answers]
    plans = [
        parse_plan(text, fps=clip.frames.fps, frames=clip.frames.count) for clip, text in zip(clips, texts, strict=True)
    ]
    readable = sum(plan.is_absent or bool(plan.keyframes) for plan in plans)
    assert len(clips) >= 3
    assert readable >= 0.75 * len(clips), "\n".join(texts)
