from pathlib import Path

import pytest
from benchmark_trees import write_refavs, write_revos
from hypothesis import settings

# A deadline would be a timing assertion.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture
def refavs_root(tmp_path: Path) -> Path:
    return write_refavs(tmp_path / "refavs")


@pytest.fixture
def revos_root(tmp_path: Path) -> Path:
    return write_revos(tmp_path / "revos")


@pytest.fixture
def no_media(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every way to open a frame, a mask, a video or a sound fails while this is in use."""

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError(f"media was opened: {arguments}")

    for target in (
        "PIL.Image.open",
        "soundfile.read",
        "datamodules.video.VideoReader",
        "datamodules.audio.AudioReader",
    ):
        monkeypatch.setattr(target, refuse)
