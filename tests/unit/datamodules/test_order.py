import logging
from collections import Counter
from itertools import chain

import pytest
import torch
from benchmark_trees import NumberedClips
from hypothesis import given
from hypothesis import strategies as st

from datamodules.errors import ConfigError, MediaError
from datamodules.order import ClipLoader, EvalOrder, ResumableLoader, TrainOrder
from datamodules.refavs import RefAVS
from datamodules.serving import ClipSet


def positions(order):
    return [[place.position for place in batch] for batch in order]


def names(batches):
    return [[clip.id for clip in batch] for batch in batches]


def train_loader(count=9, batch_size=2, workers=0, **options):
    order = TrainOrder(count, batch_size=batch_size, **options)
    return ResumableLoader(ClipSet(NumberedClips(count)), order, num_workers=workers)


@given(st.integers(1, 40), st.integers(1, 4), st.integers(1, 4), st.integers(0, 5))
def test_an_epoch_asks_every_prompt_at_most_once_in_whole_steps(size, batch_size, world_size, epoch):
    step = batch_size * world_size
    if size < step:
        return
    parts = [TrainOrder(size, batch_size=batch_size, rank=rank, world_size=world_size) for rank in range(world_size)]
    for part in parts:
        part.set_epoch(epoch)
    served = [positions(part) for part in parts]

    assert all(len(part) == size // step for part in served)
    assert all(len(batch) == batch_size for part in served for batch in part)
    flat = [position for part in served for batch in part for position in batch]
    assert len(set(flat)) == len(flat)
    assert set(flat) <= set(range(size))


@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_share_the_steps_that_one_process_would_take(world_size):
    """Step k holds the same prompts however many processes share it."""
    alone = positions(TrainOrder(25, batch_size=6, seed=5))
    parts = [
        positions(TrainOrder(25, batch_size=6 // world_size, rank=rank, world_size=world_size, seed=5))
        for rank in range(world_size)
    ]

    assert [sorted(chain.from_iterable(step)) for step in zip(*parts, strict=True)] == [sorted(step) for step in alone]


def test_orders_differ_between_epochs_and_seeds_and_not_between_runs():
    def epoch(number, seed):
        order = TrainOrder(30, batch_size=3, seed=seed)
        order.set_epoch(number)
        return positions(order)

    assert epoch(0, 1) == epoch(0, 1)
    assert epoch(0, 1) != epoch(1, 1)
    assert epoch(0, 1) != epoch(0, 2)
    assert epoch(1, 1) != epoch(0, 2)


def test_places_name_their_epoch():
    order = TrainOrder(4, batch_size=2)
    order.set_epoch(3)

    assert {place.epoch for batch in order for place in batch} == {3}


def test_too_few_prompts_for_a_step_are_refused_with_the_flag():
    with pytest.raises(ConfigError, match=r"prompts_per_step is 2 on each of 4 processes.*only 7 prompts.*--data\."):
        TrainOrder(7, batch_size=2, world_size=4)


@given(st.integers(1, 40), st.integers(1, 5), st.integers(1, 4))
def test_evaluation_serves_every_clip_once_in_the_same_blocks(size, batch_size, world_size):
    parts = [
        positions(EvalOrder(size, batch_size=batch_size, rank=rank, world_size=world_size))
        for rank in range(world_size)
    ]

    assert len({len(part) for part in parts}) == 1
    blocks = [block for turn in zip(*parts, strict=True) for block in turn if block]
    assert blocks == positions(EvalOrder(size, batch_size=batch_size))
    assert list(chain.from_iterable(blocks)) == list(range(size))


def test_evaluation_blocks_by_hand():
    """Nine clips in blocks of two on two processes: the second process has nothing left at the end."""
    assert positions(EvalOrder(9, batch_size=2, rank=0, world_size=2)) == [[0, 1], [4, 5], [8]]
    assert positions(EvalOrder(9, batch_size=2, rank=1, world_size=2)) == [[2, 3], [6, 7], []]


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_batches_are_lists_of_clips_whatever_reads_them(workers):
    loader = train_loader(workers=workers, seed=1)

    assert len(loader) == 4
    assert names(loader) == names(train_loader(seed=1))
    assert all(len(batch) == 2 for batch in train_loader(workers=workers))


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_loaders_hand_out_empty_batches_at_the_end(workers):
    order = EvalOrder(5, batch_size=2, rank=1, world_size=2)

    assert names(ClipLoader(ClipSet(NumberedClips(5)), order, num_workers=workers)) == [["2v0", "3v0"], []]


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("taken", [0, 1, 3, 4])
def test_a_loader_goes_on_where_another_stood(workers, taken):
    """After the last of four batches the next epoch begins, which is announced as it is to an undisturbed loader."""
    whole = train_loader(workers=workers, seed=2)
    batches = iter(whole)
    for _ in range(taken):
        next(batches)
    state = whole.state_dict()
    rest = names(batches)
    whole.sampler.set_epoch(1)
    following = names(whole)

    again = train_loader(workers=workers, seed=2)
    again.load_state_dict(state)
    assert (names(again) if taken < 4 else []) == rest
    again.sampler.set_epoch(1)
    assert names(again) == following


def test_the_state_counts_what_was_handed_out_and_not_what_was_read_ahead():
    loader = train_loader(workers=2, count=40)
    batches = iter(loader)
    for _ in range(3):
        next(batches)

    prompts = loader.clips.fingerprint
    assert loader.state_dict() == {"epoch": 0, "used": 6, "size": 40, "seed": 0, "prompts": prompts}


def test_the_state_is_the_same_on_every_process_and_fits_another_number_of_them():
    loaders = [train_loader(24, 2, rank=rank, world_size=2, seed=7) for rank in range(2)]
    rest = []
    for loader in loaders:
        batches = iter(loader)
        next(batches)
        state = loader.state_dict()
        rest.append(names(batches))
    alone = train_loader(24, 4, seed=7)
    alone.load_state_dict(state)

    assert loaders[0].state_dict() == loaders[1].state_dict()
    assert [sorted(batch) for batch in names(alone)] == [
        sorted(chain.from_iterable(step)) for step in zip(*rest, strict=True)
    ]


def test_the_epoch_may_be_named_after_the_iterator_is_made():
    """Lightning does so: iterator first, then the epoch, then the first batch."""
    loader, expected = train_loader(seed=4), train_loader(seed=4)
    batches = iter(loader)
    loader.sampler.set_epoch(2)
    expected.sampler.set_epoch(2)

    assert names(batches) == names(expected)


def test_naming_the_running_epoch_again_keeps_the_place():
    loader = train_loader()
    next(iter(loader))
    loader.sampler.set_epoch(0)

    assert loader.state_dict()["used"] == 2
    loader.sampler.set_epoch(1)
    assert loader.state_dict()["used"] == 0


def test_iterating_again_without_a_new_epoch_repeats_it():
    loader = train_loader()

    assert names(loader) == names(loader)


@pytest.mark.parametrize("change", [{"size": 8}, {"seed": 1}])
def test_a_state_of_other_data_is_refused(change):
    state = {**train_loader().state_dict(), **change}

    with pytest.raises(ConfigError, match=r"the checkpoint was written after 0 of . prompts.*--data\.seed"):
        train_loader().load_state_dict(state)


def test_other_prompts_of_the_same_number_are_refused():
    """Nine of ten clips: the same nine go on, nine others do not, nor do the same in another order."""

    def loader_of(*chosen):
        return ResumableLoader(ClipSet(NumberedClips(10), chosen=chosen), TrainOrder(9, batch_size=2))

    state = loader_of(*range(9)).state_dict()
    loader_of(*range(9)).load_state_dict(state)
    for others in (range(1, 10), reversed(range(9))):
        with pytest.raises(ConfigError, match=r"in the middle of 9 other prompts: .* --data\.null_fraction"):
            loader_of(*others).load_state_dict(state)


def test_a_place_within_a_step_is_cut_anew_from_there():
    """After 3 of 9 prompts, steps of 4: one step is left, of the prompts that would have come next."""
    whole = list(TrainOrder(9, batch_size=1))
    order = TrainOrder(9, batch_size=4)
    order.load_state_dict({**order.state_dict(), "used": 3})
    (step,) = order

    assert step == [place for part in whole[3:7] for place in part]
    assert (len(order), order.is_used_up) == (2, False)
    order.advance()
    assert order.is_used_up


@pytest.mark.parametrize("workers", [0, 1])
def test_loading_leaves_the_global_random_state_alone(workers):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    list(train_loader(workers=workers))

    assert torch.equal(torch.rand(3), expected)


def threads(clip):
    """Puts the number of threads of the reading process where the test can see it."""
    object.__setattr__(clip, "expression", str(torch.get_num_threads()))


def test_workers_use_one_thread():
    loader = ClipLoader(ClipSet(NumberedClips(2), prefetch=threads), EvalOrder(2, batch_size=1), num_workers=1)

    assert [clip.expression for batch in loader for clip in batch] == ["1", "1"]


@pytest.mark.parametrize("workers", [0, 2])
def test_what_workers_read_travels_with_the_clips(refavs_root, workers):
    clips = ClipSet(RefAVS(refavs_root, split="train"))
    batches = list(ClipLoader(clips, EvalOrder(len(clips), batch_size=3), num_workers=workers))

    assert [len(batch) for batch in batches] == [3, 1]
    assert all({"glance", "audio", "masks"} <= set(vars(clip)) for batch in batches for clip in batch)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_file_is_one_message_across_processes(refavs_root, workers):
    """Left to itself, PyTorch would put the traceback of the worker into it."""
    clips = ClipSet(RefAVS(refavs_root, split="test_s"))
    (refavs_root / "media" / clips.reader[0].video / "audio.wav").write_bytes(b"")

    with pytest.raises(MediaError, match=r"\Arefavs/test_s/11:.*audio\.wav cannot be decoded.*skip\.\Z"):
        list(ClipLoader(clips, EvalOrder(1, batch_size=1), num_workers=workers))


@pytest.mark.parametrize("workers", [0, 2])
def test_skipped_clips_are_counted_and_named_once(refavs_root, workers, caplog):
    """The broken clip comes up once in each of three epochs; training replaces it, evaluation leaves it out."""
    reader = RefAVS(refavs_root, split="train")
    (refavs_root / "media" / reader[1].video / "audio.wav").write_bytes(b"")
    clips = ClipSet(reader, on_bad_sample="skip", replaces_bad=True)
    loader = ResumableLoader(clips, TrainOrder(4, batch_size=2), num_workers=workers)
    with caplog.at_level(logging.WARNING):
        for epoch in range(3):
            loader.sampler.set_epoch(epoch)
            served = Counter(clip.id for batch in loader for clip in batch)
            assert served == {reader[0].id: 1, reader[2].id: 2, reader[3].id: 1}

    assert loader.skipped == {reader[1].id: 3}
    assert len(caplog.records) == 1
    assert "audio.wav" in caplog.text
    evaluation = ClipLoader(ClipSet(reader, on_bad_sample="skip"), EvalOrder(4, batch_size=4), num_workers=workers)
    assert names(evaluation) == [[reader[0].id, reader[2].id, reader[3].id]]
