"""One, two and four processes, with weights whole or spread, train the same adapter on the same global batch."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

UNIT = Path(__file__).parents[1] / "unit"
sys.path[:0] = [str(UNIT), str(UNIT / "lightning_modules")]

from rank_runs import STRATEGIES, WAIT, run  # noqa: E402
from ranks import run_ranks  # noqa: E402

from lightning_modules.sharded_strategy import ShardedStrategy  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
OF_A_PROCESS = ("clip_ratio/low_min", "clip_ratio/high_max")
"""Logged values that depend on how many processes there are: extremes over the updates of each of them."""
RESUMED = ("ddp", "sharded", "replicated")
"""Once per form of checkpoint: plain, a folder, gathered into a file."""
HALF = ("ddp", "sharded")
"""Once per way of reading a base: whole, in shares."""
ASKED = ("sharded", "layer")
"""Once per way in which a spread base answers: whole, layer by layer."""


def two_ranks(rank: int, weights: Path, folder: Path) -> None:
    """With every strategy: a whole run, which saves after its first rollout, and for some the rest of it again."""
    for name, strategy in STRATEGIES.items():
        saved = folder / f"{name}.ckpt"
        found = {"whole": run(weights, strategy=strategy(), rank=rank, world_size=2, save=saved)}
        if name in RESUMED:
            found["resumed"] = run(weights, strategy=strategy(), rank=rank, world_size=2, resume=saved)
        torch.save(found, folder / f"{name}-{rank}.pt")
    for name in HALF:
        half = run(weights, strategy=STRATEGIES[name](), rank=rank, world_size=2, steps=2, is_half=True)
        torch.save(half, folder / f"half-{name}-{rank}.pt")
    for name in ASKED:
        asked = run(weights, strategy=STRATEGIES[name](), rank=rank, world_size=2, asks_base=True)
        torch.save(asked, folder / f"asked-{name}-{rank}.pt")


def four_ranks(rank: int, weights: Path, folder: Path) -> None:
    """Go on with what two ranks have saved, as two copies of two shards each."""
    hybrid = ShardedStrategy(2, timeout=WAIT)
    result = run(weights, strategy=hybrid, rank=rank, world_size=4, resume=folder / "sharded.ckpt")
    torch.save(result, folder / f"four-{rank}.pt")


@pytest.fixture(scope="module")
def expected(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One process on all four clips."""
    return run(weights, save=tmp_path_factory.mktemp("one") / "one.ckpt")


@pytest.fixture(scope="module")
def folder(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two ranks have left, strategy by strategy."""
    there = tmp_path_factory.mktemp("two")
    run_ranks(two_ranks, weights, there)
    return there


def assert_same(found: dict[str, Any], expected: dict[str, Any], *, last_only: bool = False) -> None:
    for name, value in expected["weights"].items():
        torch.testing.assert_close(found["weights"][name], value, rtol=0, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
    steps = expected["metrics"][-1:] if last_only else expected["metrics"]
    assert len(found["metrics"]) == len(steps)
    for ours, theirs in zip(found["metrics"], steps, strict=True):
        keys = {key for key in theirs if not key.startswith(("time/", "val/")) and key not in OF_A_PROCESS}
        for key in keys:
            assert ours[key] == pytest.approx(theirs[key], rel=1e-5, abs=1e-5), key
    assert found["validation"] == pytest.approx(expected["validation"], rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("rank", [0, 1])
def test_two_processes_train_as_one_does(name: str, rank: int, folder: Path, expected: dict[str, Any]) -> None:
    """Rank 0 has the clips with readable answers, rank 1 has none; lengths and media differ between all clips."""
    found = torch.load(folder / f"{name}-{rank}.pt", weights_only=True)
    assert_same(found["whole"], expected)
    assert any(value.any() for key, value in found["whole"]["weights"].items() if "lora_B" in key)
    for clip, lengths in found["whole"]["lengths"].items():
        assert lengths == expected["lengths"][clip], "which tokens are drawn does not depend on the process"


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_process_keeps_its_share_and_no_more(name: str, folder: Path) -> None:
    """Half of the base where it is spread over two: of every tensor half of its rows, which may be an odd number."""
    kept = [torch.load(folder / f"{name}-{rank}.pt", weights_only=True)["whole"]["kept"] for rank in (0, 1)]
    for mine, other in zip(*kept, strict=True):
        assert mine["name"] == other["name"]
        if name in ("sharded", "layer"):
            rows = mine["rows"]
            assert (mine["kept"], other["kept"]) == (-(-rows // 2), rows // 2), mine["name"]
        else:
            assert mine["kept"] == other["kept"] == mine["rows"], mine["name"]
    assert any("lora_" in entry["name"] for entry in kept[0])
    assert any("layers.1.mlp" in entry["name"] for entry in kept[0])


def test_the_ranks_had_different_work_to_do(folder: Path) -> None:
    found = [torch.load(folder / f"layer-{rank}.pt", weights_only=True)["whole"]["lengths"] for rank in (0, 1)]
    passes = [sum(max(lengths) for lengths in own.values()) for own in found]
    assert passes[0] != passes[1]


@pytest.mark.parametrize("name", HALF)
def test_a_bfloat16_base_trains_a_float32_adapter(name: str, folder: Path) -> None:
    found = [torch.load(folder / f"half-{name}-{rank}.pt", weights_only=True)["weights"] for rank in (0, 1)]
    moved = [value for name, value in found[0].items() if "lora_B" in name]
    assert all(value.dtype == torch.float32 and value.isfinite().all() for value in moved)
    assert any(value.any() for value in moved)
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())


@pytest.mark.parametrize("name", HALF)
def test_activations_are_computed_again(name: str, folder: Path) -> None:
    """Both layers once forwards and once more for the way back."""
    for rank in (0, 1):
        half, plain = (torch.load(folder / f"{part}-{rank}.pt", weights_only=True) for part in (f"half-{name}", name))
        assert half["layers per pass"] == 4
        assert plain["whole"]["layers per pass"] == 2


def test_the_base_answers_for_boxes_on_one_process_as_on_two(weights: Path, folder: Path) -> None:
    """Only rank 0 has something to ask."""
    expected = run(weights, asks_base=True)
    assert expected["metrics"][0]["rewards/boxes/std"] > 0, "answers about different things differ"
    for name in ASKED:
        for rank in (0, 1):
            assert_same(torch.load(folder / f"asked-{name}-{rank}.pt", weights_only=True), expected)


@pytest.mark.parametrize("name", RESUMED)
def test_a_resumed_run_ends_as_if_it_had_never_stopped(name: str, folder: Path) -> None:
    found = torch.load(folder / f"{name}-0.pt", weights_only=True)
    for key, value in found["whole"]["weights"].items():
        assert torch.equal(found["resumed"]["weights"][key], value), key


@pytest.mark.parametrize("name", STRATEGIES)
def test_one_process_goes_on_with_what_two_have_saved(
    name: str, folder: Path, weights: Path, expected: dict[str, Any]
) -> None:
    """A folder for spread weights, one file otherwise."""
    saved = folder / f"{name}.ckpt"
    assert saved.is_dir() == (name in ("sharded", "layer"))
    assert_same(run(weights, resume=saved), expected, last_only=True)


def test_four_processes_go_on_with_what_two_have_saved(folder: Path, weights: Path, expected: dict[str, Any]) -> None:
    run_ranks(four_ranks, weights, folder, world_size=4)
    for rank in range(4):
        found = torch.load(folder / f"four-{rank}.pt", weights_only=True)
        assert_same(found, expected, last_only=True)
