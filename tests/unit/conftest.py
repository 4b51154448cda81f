"""Fixtures for all unit tests."""

from collections.abc import Callable

import pytest
import torch
from small_models import noisy_clip, random_reasoner

from datamodules.records import Clip
from models.reasoner import Reasoner

torch.set_num_threads(1)


@pytest.fixture
def make_clip() -> Callable[..., Clip]:
    return noisy_clip


@pytest.fixture
def make_reasoner() -> Callable[..., Reasoner]:
    return random_reasoner
