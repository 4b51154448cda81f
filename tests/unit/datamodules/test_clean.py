import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.clean import clean_expression, is_useless


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The cat appearing first.", "the cat appearing first"),
        ("  The  object\tmaking a\nsound. ", "the object making a sound"),
        ("The object being played by the man_producing sound.", "the object being played by the man, producing sound"),
        ("Which one has three sides?", "which one has three sides?"),
        ("car.", "car"),
        ("The man\u2019s cat", "the man\u2019s cat"),
        ("...", ""),
        ("The end. .", "the end"),
    ],
)
def test_expressions_take_one_form(text, expected):
    assert clean_expression(text) == expected


@given(st.text())
def test_cleaning_twice_changes_nothing_and_leaves_no_outer_marks(text):
    cleaned = clean_expression(text)

    assert cleaned == clean_expression(cleaned)
    assert cleaned == cleaned.strip()
    assert not cleaned.endswith(".")


@pytest.mark.parametrize("text", ["NO.", "no", " . ", "[Error] 错误: a,b"])
def test_texts_that_name_nothing_are_useless(text):
    assert is_useless(clean_expression(text))


@pytest.mark.parametrize("text", ["car.", "No object.", "The error sign"])
def test_short_texts_are_not_useless(text):
    assert not is_useless(clean_expression(text))
