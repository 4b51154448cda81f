import pytest

from lightning_modules.phases import IDLE, PhaseClock


def test_the_running_part_is_named_inside_and_idle_outside():
    clock, heard = PhaseClock(), []
    clock.listeners.append(heard.append)
    with clock.phase("rollout"):
        assert clock.current == "rollout"
        with clock.phase("System 2"):
            pass
        assert clock.current == "rollout"
    assert clock.current == IDLE
    assert heard == ["rollout", "System 2", "rollout", "idle"]


def test_a_lap_names_what_ran_and_starts_over():
    clock = PhaseClock()
    for name in ("System 2", "update", "update"):
        with clock.phase(name):
            pass
    lap = clock.lap()
    assert set(lap) == {"time/system_2_s", "time/update_s"}
    assert all(seconds >= 0 for seconds in lap.values())
    assert clock.lap() == {}


def test_an_error_leaves_the_clock_idle():
    clock = PhaseClock()
    with pytest.raises(KeyError), clock.phase("update"):
        raise KeyError("x")
    assert clock.current == IDLE
