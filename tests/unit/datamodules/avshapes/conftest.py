import pytest

from datamodules.avshapes.scene import Scene, World, sample_scene
from datamodules.avshapes.world import EVIDENCE


@pytest.fixture(scope="session")
def seen_scenes() -> list[Scene]:
    return [sample_scene((5, 0, index), World(evidence=EVIDENCE)) for index in range(80)]


@pytest.fixture(scope="session")
def unseen_scenes() -> list[Scene]:
    return [sample_scene((5, 1, index), World(evidence=EVIDENCE), unseen=True) for index in range(80)]


@pytest.fixture(scope="session")
def revos_scenes() -> list[Scene]:
    world = World(distinct_shapes=False, sounding=(1.0,), evidence=EVIDENCE)
    return [sample_scene((5, 2, index), world) for index in range(80)]
