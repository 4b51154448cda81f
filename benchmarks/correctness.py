"""Does the loss see what the sampler saw? Ours and TRL's, on prompts with images, with video, and with sound.

    python benchmarks/correctness.py
    python benchmarks/correctness.py --device cuda --dtype bfloat16 --shape 3b

GRPO weighs tokens by the ratio of their probability in the update to the one they were sampled with. On the first
update the two are the same weights' and the ratio is 1, so nobody notices when the update does not see the video. Here
both are computed: completions are sampled by each side, their log-probabilities are taken from its loss, and compared
with what the sampling model gives, media included, by transformers' own forward pass on full rows. For ours they are
also compared with what sampling remembered. Random weights of the thinker of Qwen2.5-Omni, in float32 unless another
type is asked for. In bfloat16 rounding alone makes gaps, which grow with depth and width: how large they are says the
same forward pass in float32.
Needs `pip install -e ".[bench]"` for TRL's side.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from callbacks.media import markdown_table
from grpo.engine import SampleRequest, ScoreRequest
from grpo.sampling import Sampling
from grpo.shared_engine import SharedEngine
from models.reasoner import LoRA
from speed.prompts import Conversation, PartsReasoner, read_prompt
from speed.results import FOLDER, Results
from speed.shapes import SHAPES, build_model
from speed.trl_side import TrlSettings, make_trainer, repeated

KINDS = ("image", "video", "audio")
SMALL = ("quick", "small")
SOURCES = {"loss": "of the loss", "sampling": "remembered when sampling", "rounding": "of the sampler, in float32"}


def main() -> None:
    """Compare what is missing and write the page."""
    options = parse()
    torch.set_num_threads(1)
    results = Results(options.out)
    for kind in options.kinds:
        for side in options.sides:
            point = {
                "kind": kind,
                "side": side,
                **{name: getattr(options, name) for name in ("shape", "device", "dtype", "group", "tokens")},
            }
            if results.missing(point, 0):
                results.add(point, 0, compare(point))
                print(table(results, [point]), flush=True)
    results.write_page("Log-probabilities of the loss beside those of the sampler", table(results, results.points()))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--sides", nargs="+", choices=["ours", "trl"], default=["ours", "trl"])
    parser.add_argument("--shape", choices=list(SHAPES), default="small")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="of the weights")
    parser.add_argument("--group", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=16, help="of each completion")
    parser.add_argument("--quick", action="store_true", help="the tiny model")
    parser.add_argument("--out", type=Path, default=FOLDER / "correctness.json")
    options = parser.parse_args()
    if options.quick:
        options.shape, options.group, options.tokens = "quick", 2, 4
    return options


def compare(point: dict[str, Any]) -> dict[str, Any]:
    """Mean and largest differences of log-probabilities, in nats."""
    device = torch.device(point["device"])
    dtype = getattr(torch, point["dtype"])
    model, processor = build_model("omni", SHAPES[point["shape"]], device=device, dtype=dtype)
    if point["shape"] in SMALL:
        make_sensitive(model)
    asked = conversation(point["kind"])
    inputs = read_prompt(processor, asked, device)
    judge = copy.deepcopy(model).eval()
    side = our_scores if point["side"] == "ours" else trl_scores
    completions, found = side(point, model, processor, asked, inputs)
    expected = sampler_scores(judge, inputs, completions)
    if dtype != torch.float32:
        found["rounding"] = sampler_scores(judge.float(), inputs, completions)
    gaps = {name: _gap(scores, expected) for name, scores in found.items()}
    return {"gaps": gaps, "tokens_compared": sum(len(row) for row in completions)}


@torch.no_grad()
def make_sensitive(model: torch.nn.Module) -> None:
    """Double all matrices: in a narrow model what comes next would otherwise hardly depend on anything."""
    for parameter in model.parameters():
        if parameter.ndim >= 2:
            parameter.mul_(2)


def conversation(kind: str) -> Conversation:
    """A question about noise of one kind."""
    rng = np.random.default_rng(0)
    media: dict[str, dict[str, Any]] = {
        "image": {"image": Image.fromarray(rng.integers(0, 255, (112, 112, 3), dtype=np.uint8))},
        "video": {"video": rng.integers(0, 255, (4, 3, 112, 112), dtype=np.uint8)},
        "audio": {"audio": rng.standard_normal(32_000).astype(np.float32)},
    }
    return [{"role": "user", "content": [{"type": kind, **media[kind]}, {"type": "text", "text": "what is it"}]}]


Found = tuple[list[Tensor], dict[str, list[Tensor]]]
"""Completions, and log-probabilities of their tokens by name of where they come from."""


def our_scores(
    point: dict[str, Any], model: Any, processor: Any, asked: Conversation, inputs: dict[str, Tensor]
) -> Found:
    """What sampling remembers, and what the loss takes."""
    del asked
    reasoner, engine = PartsReasoner("omni", model, processor, lora=LoRA(r=8, alpha=16)), SharedEngine()
    encoded = reasoner.encode_inputs(inputs)
    sampling = Sampling(max_new_tokens=point["tokens"])
    (group,) = engine.sample(reasoner, [SampleRequest(encoded, list(range(point["group"])))], sampling)
    ids = [completion.ids for completion in group]
    scores = engine.score(reasoner, [ScoreRequest(encoded, ids)], temperature=1.0).logprobs.detach()
    packed = [row[: len(own)] for row, own in zip(scores, ids, strict=True)]
    return ids, {"loss": packed, "sampling": [completion.logprobs for completion in group]}


def trl_scores(
    point: dict[str, Any], model: Any, processor: Any, asked: Conversation, inputs: dict[str, Tensor]
) -> Found:
    """What TRL's loss takes, read where it is computed."""
    del inputs
    settings = TrlSettings([point["tokens"]] * point["group"], 0.0, LoRA(r=8, alpha=16), False, False, steps=1)
    text = [{"role": "user", "content": [{"type": "text", "text": "x"}]}]
    trainer = make_trainer(
        model,
        processor,
        [text],
        settings,
        reward=lambda texts: [float(index) for index in range(len(texts))],
        device=torch.device(point["device"]),
    )
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    # A fresh adapter changes nothing, so both sides sample from the same model.
    batch = trainer._generate_and_score_completions([_example(asked) for _ in range(point["group"])])
    seen: list[Tensor] = []
    score = trainer._get_per_token_logps_and_entropies

    def listen(*args: Any, **more: Any) -> Any:
        found = score(*args, **more)
        seen.append(found[0].detach())
        return found

    trainer._get_per_token_logps_and_entropies = listen
    trainer._compute_loss(trainer.model, batch)
    lengths = batch["completion_mask"].sum(dim=1).tolist()
    ids = [row[:length].cpu() for row, length in zip(batch["completion_ids"], lengths, strict=True)]
    return ids, {"loss": [row[:length] for row, length in zip(seen[-1], lengths, strict=True)]}


def _example(asked: Conversation) -> dict[str, Any]:
    """A row as TRL's data sets have them: images beside the text, other media within it."""
    media, text = asked[0]["content"]
    if media["type"] == "image":
        return {"prompt": [{"role": "user", "content": text["text"]}], "images": [media["image"]]}
    return {"prompt": asked}


@torch.no_grad()
def sampler_scores(model: Any, inputs: dict[str, Tensor], completions: Sequence[Tensor]) -> list[Tensor]:
    """Log-probabilities by transformers' own forward pass, every row in full, media included."""
    rows = repeated(inputs, len(completions))
    answers = pad_sequence(list(completions), batch_first=True).to(rows["input_ids"].device)
    ids = torch.cat([rows.pop("input_ids"), answers], dim=1)
    rows.pop("attention_mask")
    logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False, **rows).logits
    logprobs = torch.log_softmax(logits[:, -answers.shape[1] - 1 : -1].float(), dim=-1)
    chosen = logprobs.gather(-1, answers[..., None]).squeeze(-1)
    return [row[: len(own)] for row, own in zip(chosen, completions, strict=True)]


def _gap(found: Sequence[Tensor], expected: Sequence[Tensor]) -> dict[str, float]:
    difference = (torch.cat([*found]).cpu() - torch.cat([*expected]).cpu()).abs()
    return {"mean": float(difference.mean()), "max": float(difference.max())}


def table(results: Results, wanted: Sequence[dict[str, Any]]) -> str:
    """One row per point and source of log-probabilities."""
    rows = [
        [
            point["kind"],
            point["side"],
            SOURCES[name],
            f"{gap['mean']:.1e}",
            f"{gap['max']:.1e}",
            str(row["tokens_compared"]),
        ]
        for point in wanted
        for row in results.of(point)
        for name, gap in row["gaps"].items()
    ]
    return markdown_table(["prompt with", "side", "log-probabilities", "mean gap, nats", "largest", "tokens"], rows)


if __name__ == "__main__":
    main()
