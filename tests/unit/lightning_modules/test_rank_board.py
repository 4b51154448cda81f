import os
import subprocess
import sys
from datetime import timedelta
from types import SimpleNamespace

import pytest
import torch.distributed as dist

from lightning_modules.rank_board import Position, RankBoard, RankError, Sign, describe, this_machine


def two_boards() -> tuple[RankBoard, RankBoard]:
    """What two processes would see, in one."""
    told: list[tuple[str, int]] = []

    def broadcast(value: tuple[str, int]) -> tuple[str, int]:
        told.append(value)
        return told[0]

    patience = timedelta(seconds=5)
    return RankBoard(0, 2, broadcast, patience=patience), RankBoard(1, 2, broadcast, patience=patience)


def sign(position: Position, **changes: object) -> Sign:
    return Sign(**{"position": position, "beat": 1, "moved_s": 0.0, "machine": "", "process": 1} | changes)


def test_what_one_writes_the_other_reads():
    first, second = two_boards()
    place = Position(3, "rollout", "clip ü")
    second.write(place)
    signs = first.read()
    assert signs[1].position == place
    assert signs[1].beat == 2, "its beginning was the first sign"
    assert signs[1].process == os.getpid()
    assert not signs[1].has_left
    second.write(place, has_left=True)
    assert first.read()[1].has_left


def test_the_first_reason_to_end_stays():
    first, second = two_boards()
    assert first.failure == second.failure == ""
    second.fail("the clip is broken")
    first.fail("the connection is broken")
    assert first.failure == second.failure == "the clip is broken"


def test_a_board_whose_keeper_is_gone_names_it():
    def no_answer(*_: object) -> None:
        raise dist.DistNetworkError("the connection is closed")

    _, second = two_boards()
    second._store = SimpleNamespace(set=no_answer)
    with pytest.raises(RankError, match="rank 0 is gone"):
        second.write(Position(1))


def test_a_process_that_has_ended_is_dead_and_this_one_is_not():
    ended = subprocess.Popen([sys.executable, "-c", ""])
    while ended.poll() is None:
        pass
    assert sign(Position(), machine=this_machine(), process=ended.pid).is_dead
    assert not sign(Position(), machine=this_machine(), process=os.getpid()).is_dead
    assert not sign(Position(), machine="elsewhere", process=ended.pid).is_dead, "its number means nothing here"


def test_a_process_that_nobody_has_buried_is_dead():
    child = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    child.stdout.read()  # ends when the child does
    while not sign(Position(), machine=this_machine(), process=child.pid).is_dead:
        pass
    child.wait()


def test_those_who_are_behind_are_named_first():
    signs = {0: sign(Position(4, "update", "a"), moved_s=61.2), 1: sign(Position(4, "System 2", "b"), moved_s=60.0)}
    assert describe(signs) == ("rank 1: step 4, System 2, with b (for 60 s); rank 0: step 4, update, with a (for 61 s)")
    assert str(Position()) == "step 0, starting"
