from types import SimpleNamespace

import pytest
from lightning.pytorch.utilities.exceptions import SIGTERMException

from callbacks.rank_watch import RankWatch, place
from lightning_modules.phases import PhaseClock
from lightning_modules.rank_board import Position, Sign


def sign(beat: int, position: Position | None = None, **changes: object) -> Sign:
    fields = {"position": position or Position(1, "rollout"), "beat": beat, "moved_s": 0.0, "machine": "", "process": 1}
    return Sign(**fields | changes)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Seconds that pass when a test says so."""
    now = SimpleNamespace(s=1000.0)
    monkeypatch.setattr("time.monotonic", lambda: now.s)
    return now


BOARD = SimpleNamespace(rank=0)


def test_a_process_without_a_sign_counts_as_gone(clock):
    watch = RankWatch(lost_after_s=30.0)
    assert watch._judge(BOARD, {0: sign(1), 1: sign(1)}) == ""
    clock.s += 29
    assert watch._judge(BOARD, {0: sign(2), 1: sign(2)}) == "", "it has beaten"
    clock.s += 31
    verdict = watch._judge(BOARD, {0: sign(3), 1: sign(2)})
    assert verdict == "rank 1 is gone (no sign of it for 31 s); it was last seen in step 1, rollout"


def test_a_process_that_has_left_is_not_missed(clock):
    watch = RankWatch(lost_after_s=30.0)
    watch._judge(BOARD, {0: sign(1), 1: sign(1, has_left=True)})
    clock.s += 100
    assert watch._judge(BOARD, {0: sign(2), 1: sign(1, has_left=True)}) == ""


def test_a_stall_is_reported_twice_as_late_each_time_and_then_ends_the_run(clock, capsys):
    watch, reports = RankWatch(stalled_after_s=100.0, stop_after_s=1000.0), []
    watch._judge(BOARD, {0: sign(0, Position(0, "train")), 1: sign(0, Position(0, "train"))})
    for beat in range(1, 12):
        signs = {0: sign(beat, Position(1, "update", "a")), 1: sign(beat, Position(1, "rewards", "b"))}
        verdict = watch._judge(BOARD, signs)
        reports.append("no process has moved" in capsys.readouterr().err)
        clock.s += 101
    assert [index for index, reported in enumerate(reports) if reported] == [1, 3, 7]
    assert verdict.startswith("no process has moved for 1010 s. rank 1: step 1, rewards, with b")


def test_reading_weights_takes_as_long_as_it_takes(clock, capsys):
    """No process has moved since the start; that others write on the board a little later is no movement.

    Neither is the second sign of a process, the first with a place in it.
    """
    watch, start = RankWatch(stalled_after_s=100.0, stop_after_s=1000.0), Position(0, "train")
    watch._judge(BOARD, {0: sign(1, Position())})
    watch._judge(BOARD, {0: sign(1, start), 1: sign(1, Position())})
    for beat in range(2, 40):
        assert watch._judge(BOARD, {0: sign(beat, start), 1: sign(beat, start)}) == ""
        clock.s += 101
    assert "no process has moved for 101 s" in capsys.readouterr().err
    watch._judge(BOARD, {0: sign(40, Position(0, "rollout")), 1: sign(40, start)})
    clock.s += 1001
    verdict = watch._judge(BOARD, {0: sign(41, Position(0, "rollout")), 1: sign(41, start)})
    assert verdict.startswith("no process has moved for 1001 s")


def test_movement_of_anybody_is_no_stall(clock, capsys):
    watch = RankWatch(stalled_after_s=100.0)
    for beat in range(1, 6):
        assert watch._judge(BOARD, {0: sign(beat), 1: sign(beat, Position(beat, "rollout"))}) == ""
        clock.s += 90
    assert capsys.readouterr().err == ""


def test_a_long_rollout_that_goes_on_is_no_stall(clock, capsys):
    """Nothing but the passes through the model changes for hours, as where the base comes from the host's memory."""
    watch = RankWatch(stalled_after_s=100.0, stop_after_s=1000.0)
    for beat in range(1, 50):
        signs = {rank: sign(beat, Position(1, "rollout", "a", passes=beat)) for rank in (0, 1)}
        assert watch._judge(BOARD, signs) == ""
        clock.s += 90
    assert capsys.readouterr().err == ""


def test_one_process_is_not_watched():
    watch = RankWatch()
    watch.setup(SimpleNamespace(world_size=1), None, "fit")
    assert watch._thread is None
    watch.on_exception(None, None, ValueError("its own"))
    watch.teardown(None, None, "fit")


@pytest.mark.parametrize(("command", "leaves"), [("fit", [True]), ("test", [])])
def test_a_stop_on_request_is_no_failure(command: str, leaves: list[bool]):
    """Only processes that train agree to stop; of others one may be asked alone, and the rest has to hear of it."""
    left = []
    board = SimpleNamespace(
        rank=1,
        fail=lambda reason: pytest.fail("nothing has failed"),
        write=lambda position, *, has_left: left.append(has_left),
    )
    watch, state = RankWatch(), SimpleNamespace(fn=command, stage=None)
    watch._board = board
    watch.on_exception(SimpleNamespace(state=state, global_step=2), None, SIGTERMException())
    assert left == leaves


def test_a_place_is_a_part_of_the_step_and_its_clip():
    module, stage = SimpleNamespace(clock=PhaseClock(), rollout_step=3), SimpleNamespace(value="train")
    trainer = SimpleNamespace(state=SimpleNamespace(stage=stage), global_step=6)
    assert place(trainer, module) == Position(3, "train")
    with module.clock.phase("System 2"):
        module.clock.look_at("a", "b")
        assert place(trainer, module) == Position(3, "System 2", "a, b")
        module.clock.passes += 1
        assert place(trainer, module) == Position(3, "System 2", "a, b", passes=1)
        stage.value = "validate"
        assert place(trainer, module) == Position(3, "System 2", "a, b (validate)", passes=1)
    assert place(trainer, module).sample == ""
    assert place(trainer, SimpleNamespace()) == Position(6, "validate")
