import pytest
import torch
from doubles import fit, module_of

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


@pytest.mark.filterwarnings("ignore")
def test_passes_are_counted_as_they_are_made(make_reasoner, make_clip):
    """By them others see that a long part goes on: one for every token of a rollout, and those of updates."""
    module, passes = module_of(make_reasoner()), {}
    module.clock.listeners.append(lambda name: passes.setdefault(name, module.clock.passes))
    fit(module, [make_clip("a"), make_clip("b", has_audio=False)], 1)
    module.configure_model()  # as a second command would
    longest = max(len(rollout.completion_ids) for group in module.last_groups for rollout in group.rollouts)
    assert passes["System 2"] - passes["rollout"] >= longest
    assert module.clock.passes > passes["update"]
    before = module.clock.passes
    module.reasoner.embed_tokens(torch.tensor([1]))
    assert module.clock.passes == before + 1
