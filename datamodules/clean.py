"""One form for every expression, so that punctuation gives nothing away.

In RefAVS the sentences about absent targets carry no full stop while nearly all others do; without cleaning, a model
could tell the two apart by the last character.
"""

from __future__ import annotations

import re

USELESS = frozenset({"", "no"})
"""Cleaned expressions that name nothing; left over from annotation."""


def clean_expression(text: str) -> str:
    """Lower case, single spaces, no outer spaces and no final full stops.

    An underscore stands where a comma was meant and becomes one. Question marks stay: they belong to the sentence.

    Args:
        text: The expression as annotated, or as a person typed it.

    Returns:
        The cleaned expression; empty when nothing but spaces and full stops was there.
    """
    spaced = re.sub(r"\s+", " ", re.sub(r"\s*_+\s*", ", ", text))
    return spaced.strip(" .,").lower()


def is_useless(text: str) -> bool:
    """True for expressions that cannot be answered: empty ones, the word "no", messages of the annotation tool.

    Args:
        text: A cleaned expression.
    """
    return text in USELESS or text.startswith("[error]")
