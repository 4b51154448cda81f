from collections import Counter
from itertools import chain

import pytest
from benchmark_trees import NumberedClips
from hypothesis import given
from hypothesis import strategies as st

from datamodules.errors import ConfigError
from datamodules.mixture_order import MixedClips, MixtureOrder, Share
from datamodules.order import ResumableLoader, TrainOrder
from datamodules.serving import ClipSet, Place

SIZES = {"a": 12, "b": 8, "c": 5}
STARTS = {"a": 0, "b": 12, "c": 20}


def shares(**taken: int) -> dict[str, Share]:
    return {name: Share(SIZES[name], taken.get(name, size)) for name, size in SIZES.items()}


def order(batch_size: int = 2, **options) -> MixtureOrder:
    return MixtureOrder(shares(), batch_size=batch_size, **options)


def source(position: int) -> str:
    return max((name for name, start in STARTS.items() if start <= position), key=STARTS.__getitem__)


def positions(one: TrainOrder) -> list[list[int]]:
    return [[place.position for place in batch] for batch in one]


def take(one: MixtureOrder, steps: int) -> list[list[int]]:
    """What the trainer is handed, counted as the loader counts it."""
    taken = positions(one)[:steps]
    for _ in taken:
        one.advance()
    return taken


@given(
    st.lists(st.tuples(st.integers(4, 30), st.integers(4, 30)), min_size=1, max_size=4),
    st.integers(1, 2),
    st.integers(1, 2),
    st.integers(0, 4),
)
def test_a_step_is_of_one_source_and_asks_no_prompt_twice(pairs, batch_size, world_size, epoch):
    sizes = {str(number): Share(max(pair), min(pair)) for number, pair in enumerate(pairs)}
    starts = [sum(max(pair) for pair in pairs[:number]) for number in range(len(pairs))]
    step = batch_size * world_size
    parts = [MixtureOrder(sizes, batch_size=batch_size, rank=rank, world_size=world_size) for rank in range(world_size)]
    for part in parts:
        part.set_epoch(epoch)
    steps = [list(chain.from_iterable(batches)) for batches in zip(*map(positions, parts), strict=True)]

    def owner(position: int) -> int:
        return max(number for number, start in enumerate(starts) if start <= position)

    assert len(steps) == len(parts[0]) == sum(min(pair) // step for pair in pairs)
    assert all(len(positions) == step and len({owner(one) for one in positions}) == 1 for positions in steps)
    flat = list(chain.from_iterable(steps))
    assert len(set(flat)) == len(flat)
    assert Counter(owner(one) for one in flat) == {n: min(pair) // step * step for n, pair in enumerate(pairs)}


def test_sources_take_turns_in_proportion():
    """12, 8 and 5 prompts in steps of 1: after any step no source is more than about one step off its share."""
    seen = Counter()
    for number, (position,) in enumerate(positions(order(batch_size=1)), start=1):
        seen[source(position)] += 1
        assert all(abs(seen[name] - number * size / 25) < 1.5 for name, size in SIZES.items())
    assert seen == SIZES


def test_processes_share_the_steps_that_one_process_would_take():
    alone = positions(order(batch_size=4, seed=5))
    halves = [positions(order(batch_size=2, rank=rank, world_size=2, seed=5)) for rank in range(2)]

    assert [sorted(one + other) for one, other in zip(*halves, strict=True)] == [sorted(step) for step in alone]


def test_epochs_and_seeds_differ_and_runs_do_not():
    def epoch(number: int, seed: int) -> list[list[int]]:
        one = order(seed=seed)
        one.set_epoch(number)
        return positions(one)

    assert epoch(0, 0) == epoch(0, 0)
    assert epoch(0, 0) != epoch(1, 0)
    assert epoch(0, 0) != epoch(0, 1)


def test_what_an_epoch_does_not_take_comes_in_another():
    one = MixtureOrder(shares(a=6), batch_size=2)
    seen = set()
    for epoch in range(6):
        one.set_epoch(epoch)
        taken = [position for step in positions(one) for position in step if source(position) == "a"]
        assert len(taken) == 6
        seen |= set(taken)
    assert seen == set(range(12))


@pytest.mark.parametrize("steps", range(13))
def test_every_place_resumes_to_what_would_have_come(steps):
    whole = positions(order())
    first, second = order(), order()
    first.set_epoch(0)
    before = take(first, steps)
    second.load_state_dict(first.state_dict())

    assert before + positions(second) == whole
    assert len(second) == len(whole) == 12
    assert second.is_used_up == (steps == 12)


@pytest.mark.parametrize(("before", "after", "steps"), [(1, 2, 7), (2, 1, 4), (2, 4, 3), (4, 2, 2)])
def test_with_other_steps_no_prompt_is_asked_twice(before, after, steps):
    """What fills no step is left out, which is less than a step per source and size."""
    first, second = order(before), order(after)
    seen = list(chain.from_iterable(take(first, steps)))
    second.load_state_dict(first.state_dict())
    rest = positions(second)
    seen += chain.from_iterable(rest)

    assert len(set(seen)) == len(seen)
    assert len(seen) > 25 - 3 * (before + after)
    assert len(second) == len(order(after))


def test_another_mixture_is_not_resumed():
    state = order().state_dict()

    with pytest.raises(ConfigError, match=r"now there are \{'a': 6, 'b': 8, 'c': 5\} and seed 0.*--data\.sources"):
        MixtureOrder(shares(a=6), batch_size=2).load_state_dict(state)
    with pytest.raises(ConfigError, match="and seed 1"):
        order(seed=1).load_state_dict(state)
    with pytest.raises(ConfigError, match="of another data module"):
        order().load_state_dict(TrainOrder(25, batch_size=2).state_dict())
    spent = order()
    take(spent, 12)
    with pytest.raises(RuntimeError, match="no step left"):
        spent.advance()


def test_a_source_that_fills_no_step_is_named():
    with pytest.raises(ConfigError, match=r"prompts_per_step is 3 on each of 2 processes.*too few per epoch: c \(5\)"):
        order(batch_size=3, world_size=2)


def test_the_loader_goes_on_with_the_next_epoch_of_every_source():
    """Visits count per source; after the last step the epoch starts again."""
    clips = MixedClips([ClipSet(NumberedClips(size)) for size in SIZES.values()])
    loader = ResumableLoader(clips, order())

    first = [[clip.id for clip in batch] for batch in loader]
    again = [[clip.id for clip in batch] for batch in loader]
    assert first == again
    loader.sampler.set_epoch(1)
    assert {clip.id.partition("v")[2] for batch in loader for clip in batch} == {"1"}
    assert len(clips) == 25


def test_a_run_does_not_go_on_with_other_prompts_of_a_source():
    """As many as before, from every source, but those of the last one are others."""

    def loader_of(*last):
        clips = [ClipSet(NumberedClips(size)) for size in list(SIZES.values())[:-1]]
        return ResumableLoader(MixedClips([*clips, ClipSet(NumberedClips(9), chosen=last)]), order())

    size = list(SIZES.values())[-1]
    state = loader_of(*range(size)).state_dict()
    loader_of(*range(size)).load_state_dict(state)
    with pytest.raises(ConfigError, match="in the middle of 25 other prompts"):
        loader_of(*range(1, size + 1)).load_state_dict(state)


def test_a_clip_comes_from_the_source_of_its_place():
    clips = MixedClips([ClipSet(NumberedClips(2)), ClipSet(NumberedClips(3), chosen=[2, 0])])

    assert [clips[Place(0, position)].clip.id for position in range(4)] == ["0v0", "1v0", "2v0", "0v0"]
