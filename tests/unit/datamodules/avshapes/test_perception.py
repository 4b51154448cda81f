from itertools import product

import numpy as np
import pytest

from datamodules.avshapes.perception import HEARD_WORDS, PITCH_WORDS, SEEN_WORDS, PerceptionStream
from datamodules.avshapes.recipes import PerceptionData
from datamodules.avshapes.scene import COLORS, SHAPES, UNSEEN_LOOKS, UNSEEN_TONES, World


def stream(**changes):
    settings = {"seed": 3, "pairs": 12, "clips": 2, "side": 112, "cells": 4, "tokens": 50, "steps": 2, "world": World()}
    return PerceptionStream(**{**settings, **changes})


def shown_looks(batch):
    """(color, shape) of what is seen."""
    return lone_pairs(batch.seen.reshape(-1, len(SEEN_WORDS)), SEEN_WORDS, COLORS, SHAPES)


def sung_tones(batch):
    """(shape, pitch) of what is heard."""
    pairs = lone_pairs(batch.heard.reshape(-1, len(HEARD_WORDS)), HEARD_WORDS, SHAPES, PITCH_WORDS)
    return {(shape, PITCH_WORDS.index(word)) for shape, word in pairs}


def lone_pairs(labels, words, *kinds):
    """Pairs of words of tokens that are about one thing; a token about two has the words of both."""
    columns = [[words.index(word) for word in kind] for kind in kinds]
    alone = labels[sum(labels[:, of_kind].sum(axis=1) for of_kind in columns) == 2]
    return {pair for pair in product(*kinds) if alone[:, [words.index(word) for word in pair]].all(axis=1).any()}


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_batch_depends_on_seed_and_step_alone(share):
    first, again = (stream(unseen_share=share) for _ in range(2))
    again.draw(0)
    for name, values in vars(first.draw(1)).items():
        np.testing.assert_array_equal(values, vars(again.draw(1))[name], err_msg=name)
    assert not np.array_equal(first.draw(0).frames, first.draw(1).frames)


def test_unseen_looks_and_tones_are_there_where_they_are_asked_for():
    seen, every = stream(pairs=150, clips=60).draw(0), stream(pairs=300, clips=60, unseen_share=0.5).draw(0)
    assert not shown_looks(seen) & UNSEEN_LOOKS
    assert not sung_tones(seen) & UNSEEN_TONES
    assert shown_looks(every) == set(product(COLORS, SHAPES))
    assert sung_tones(every) == set(product(SHAPES, range(len(PITCH_WORDS))))


def test_held_out_scenes_are_seen_ones_first_and_unseen_ones_second():
    loaders = PerceptionData(1, pairs=1, clips=1, val_pairs=60, workers=0).val_dataloader()
    seen, unseen = (shown_looks(next(iter(loader))) for loader in loaders)
    assert not seen & UNSEEN_LOOKS
    assert unseen & UNSEEN_LOOKS
