"""What several tests of the scorer begin with."""

import pytest
from score_trees import TABLE, VIDEOS, write_video_predictions, write_video_truth


@pytest.fixture
def revos(tmp_path):
    """Folder, predictions and the objects' masks of a small ReVOS."""
    root = tmp_path / "revos"
    masks = write_video_truth(root, VIDEOS)
    return root, write_video_predictions(tmp_path / "predictions", root / TABLE), masks
