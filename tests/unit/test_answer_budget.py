"""Every way of training is tested with room for the longest answer that it may have learned."""

from pathlib import Path

import pytest
import yaml
from transformers import AutoConfig, AutoProcessor

from datamodules.avshapes.make import ensure_avshapes
from datamodules.refavs import RefAVS
from datamodules.revos import ReVOS
from datamodules.supervised import teacher
from models.plan import render_answer
from models.processing import PromptBuilder

ROOT = Path(__file__).parents[2]
SIZES = {
    "refavs": {"train": 24, "val": 0, "test_s": 0, "test_u": 0, "test_n": 0, "null_train": 4, "null_val": 0},
    "revos": {"train": 12, "valid": 0},
}
BUDGETS = {
    path.stem: yaml.safe_load(path.read_text())["model"]["init_args"]["evaluation"]["max_new_tokens"]
    for path in (ROOT / "configs" / "baselines" / name for name in ("sft.yaml", "grpo.yaml"))
}


@pytest.fixture(scope="module")
def builder() -> PromptBuilder:
    weights = ROOT / "weights" / "tiny" / "reasoner"
    return PromptBuilder(AutoProcessor.from_pretrained(weights), AutoConfig.from_pretrained(weights))


def test_all_rows_may_answer_at_the_same_length():
    assert len(set(BUDGETS.values())) == 1


@pytest.mark.parametrize("benchmark", ["refavs", "revos"])
def test_held_out_answers_have_room_for_the_longest_target(benchmark, builder, tmp_path):
    root = ensure_avshapes(benchmark, sizes=SIZES[benchmark], cache_dir=tmp_path, workers=1)
    reader = (RefAVS if benchmark == "refavs" else ReVOS)(root, split="train")
    assert len(reader) >= 64
    clips = [reader.clip(index) for index in range(len(reader))]
    for answers in ("labels", "oracle", "places"):
        shown = [teacher(answers, 4, root)(clip).demonstrations[0] for clip in clips]
        texts = [render_answer(one.segments, think=one.thought) for one in shown]
        longest = max(len(builder.answer_ids(text)) for text in texts)
        assert 150 < longest <= min(BUDGETS.values()), f"{answers} of {benchmark}"
