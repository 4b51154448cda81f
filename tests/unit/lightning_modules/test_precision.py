"""Which precisions a policy is trained in."""

import pytest
from doubles import fit, module_of

from datamodules.errors import ConfigError
from grpo import losses

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def clips(make_clip):
    return [make_clip("a"), make_clip("b", has_audio=False)]


@pytest.mark.parametrize(
    ("precision", "reason"),
    [("16-mixed", "gradient scaling"), ("16-true", "adapter in 16 bits"), ("bf16-true", "adapter in 16 bits")],
)
def test_precisions_that_cannot_train_an_adapter_are_refused(make_reasoner, clips, precision, reason):
    module = module_of(make_reasoner())
    module._trainer = type("Trainer", (), {"precision": precision})()
    with pytest.raises(ConfigError, match=rf"precision is {precision}, .*{reason}.*--trainer\.precision bf16-mixed"):
        module.setup("fit")
    if precision == "bf16-true":
        with pytest.raises(ConfigError, match=r"--model\.reasoner\.dtype bfloat16"):
            fit(module_of(make_reasoner()), clips, 1, precision=precision)


def test_mixed_precision_samples_and_trains_the_same_policy(make_reasoner, make_clip, monkeypatch):
    """In bfloat16 log-probabilities of about 5 nats agree to some hundredths at worst; sound is prepared in float32."""
    seen = []
    original = losses.importance_ratio
    monkeypatch.setattr(losses, "importance_ratio", lambda b, s: seen.append(original(b, s)) or seen[-1])
    watch = fit(module_of(make_reasoner()), [make_clip()], 1, precision="bf16-mixed")
    assert (seen[0] - 1).abs().max() < 0.1
    assert watch.metrics[0]["grad_norm"] > 0
