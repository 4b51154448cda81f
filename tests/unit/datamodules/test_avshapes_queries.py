import re

import numpy as np
import pytest

from datamodules.avshapes.world import COLORS, SHAPES, UNSEEN_LOOKS, Thing
from datamodules.avshapes_queries import SEEN_LOOKS, Query, corpus, sample_queries, sample_query


def thing(color: str, shape: str) -> Thing:
    return Thing(shape, color, radius=(0.1,), path=((0.5, 0.5),), presence="stay", moves=False)


def words_of(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", text))


@pytest.mark.parametrize(
    ("query", "fitting"),
    [
        (Query("the red circle", "red", "circle"), ["red circle"]),
        (Query("the red one", "red"), ["red circle", "red square"]),
        (Query("the circle", shape="circle"), ["red circle", "blue circle"]),
        (Query("the object"), ["red circle", "red square", "blue circle"]),
        (Query("the blue star", "blue", "star"), []),
    ],
)
def test_a_query_fits_the_things_that_it_is_true_of(query, fitting):
    things = [thing("red", "circle"), thing("red", "square"), thing("blue", "circle")]
    assert [each.name for each in things if query.fits(each)] == fitting


def test_the_meaning_of_a_query_is_in_its_words_and_no_other_color_or_shape_is():
    rng = np.random.default_rng(0)
    for query in (sample_query(rng) for _ in range(2000)):
        words = words_of(query.text)
        assert words & set(COLORS) == ({query.color} if query.color else set())
        shapes = {shape for shape in SHAPES if words & {shape, f"{shape}s"}}
        assert shapes == ({query.shape} if query.shape else set())


def test_held_out_looks_are_never_asked_for():
    rng = np.random.default_rng(1)
    asked = {(query.color, query.shape) for query in (sample_query(rng) for _ in range(3000))}
    assert not asked & UNSEEN_LOOKS
    assert set(SEEN_LOOKS) <= asked
    assert {(color, None) for color in COLORS} | {(None, shape) for shape in SHAPES} | {(None, None)} <= asked


def test_plain_queries_have_no_words_that_mean_nothing():
    """Bare phrases are made of few words; decorated ones are longer on average by more than one word."""
    lengths = [
        np.mean([len(sample_query(np.random.default_rng(i), plain=plain).text.split()) for i in range(500)])
        for plain in (True, False)
    ]
    assert lengths[1] > lengths[0] + 1


def test_no_two_queries_of_a_batch_read_the_same():
    queries = sample_queries(np.random.default_rng(2), 60)
    assert len({query.text for query in queries}) == len(queries) == 60


def test_the_corpus_is_a_function_of_its_seed():
    assert corpus(3, lines=50) == corpus(3, lines=50)
    assert corpus(3, lines=50) != corpus(4, lines=50)
    assert set(COLORS) | set(SHAPES) <= set(corpus(3, lines=0))
