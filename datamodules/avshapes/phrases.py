"""The words of AVShapes: paraphrases of every question, and the implied forms that reasoning questions use.

Ordinary and null rows use the same phrases, so wording never tells whether the target is there.
"""

from __future__ import annotations

REFERRING: dict[tuple[str, str], tuple[str, ...]] = {
    ("looks", "full"): ("the {color} {shape}", "the {shape} that is {color}", "the {shape} in {color}"),
    ("looks", "shape"): ("the {shape}", "the object shaped like a {shape}", "the thing that is a {shape}"),
    ("looks", "color"): ("the {color} thing", "the {color} object", "the thing that is {color}"),
    ("order", "first"): (
        "the first object to make a sound",
        "the object that sounds first",
        "the thing heard before all others",
    ),
    ("order", "last"): (
        "the last object to make a sound",
        "the object that sounds last",
        "the thing heard after all others",
    ),
    ("time", "beginning"): (
        "the object that sounds at the beginning",
        "the thing heard at the start of the clip",
    ),
    ("time", "middle"): (
        "the object that sounds in the middle",
        "the thing heard halfway through the clip",
    ),
    ("time", "end"): (
        "the object that sounds near the end",
        "the thing heard at the end of the clip",
    ),
    ("pitch", "highest"): (
        "the object making the highest sound",
        "the thing with the highest tone",
        "the object with the highest pitch",
    ),
    ("pitch", "lowest"): (
        "the object making the lowest sound",
        "the thing with the lowest tone",
        "the object with the lowest pitch",
    ),
    ("loudness", "loudest"): (
        "the object making the loudest sound",
        "the loudest thing",
        "the object heard most loudly",
    ),
    ("loudness", "quietest"): (
        "the object making the quietest sound",
        "the quietest thing that sounds",
        "the object heard most softly",
    ),
    ("silence", "silent"): (
        "the only object that makes no sound",
        "the thing that stays silent",
        "the silent object",
    ),
    ("motion", "appears"): (
        "the object that appears later",
        "the thing that comes into view after the start",
        "the object that is not there at first",
    ),
    ("motion", "leaves"): (
        "the object that leaves before the end",
        "the thing that goes out of view",
        "the object that is gone at the end",
    ),
    ("motion", "moves"): (
        "the object that is moving",
        "the thing that changes its place",
        "the moving object",
    ),
    ("motion", "still"): (
        "the object that stays in place",
        "the thing standing still",
        "the object that does not move",
    ),
    ("size", "largest"): ("the largest object", "the biggest thing", "the object larger than the others"),
    ("size", "smallest"): ("the smallest object", "the tiniest thing", "the object smaller than the others"),
    ("position", "leftmost"): (
        "the object on the left at the start",
        "the thing that starts farthest to the left",
    ),
    ("position", "rightmost"): (
        "the object on the right at the start",
        "the thing that starts farthest to the right",
    ),
    ("plural", "color"): ("all {color} things", "every {color} object", "all objects that are {color}"),
    ("plural", "shape"): ("every {shape}", "all objects shaped like a {shape}", "each {shape}"),
}
"""(evidence, variant) to phrases, lower-case, without a final full stop."""

REASONING: dict[tuple[str, str], tuple[str, ...]] = {
    ("looks", "full"): (
        "Which object with the color of {hue} {form}?",
        "Which thing {form} and looks like {hue} in color?",
    ),
    ("looks", "shape"): ("Which object {form}?", "Which one of these {form}?", "Can you find the thing that {form}?"),
    ("looks", "color"): (
        "Which object has the color of {hue}?",
        "Which one matches {hue} in color?",
        "What here could be mistaken for {hue} by its color?",
    ),
    ("motion", "appears"): (
        "Which one arrived late to the scene?",
        "Who joined the others after the beginning?",
        "What would be missing from a photo of the first moment?",
    ),
    ("motion", "leaves"): (
        "Which one did not wait for the end?",
        "Who said goodbye early?",
        "What would be missing from a photo of the last moment?",
    ),
    ("motion", "moves"): (
        "Which one is restless?",
        "Which object would be blurred in a long exposure?",
    ),
    ("motion", "still"): (
        "Which one never left its spot?",
        "Which object could have been glued to its place?",
    ),
    ("size", "largest"): ("Which object would need the biggest box?", "Which one takes up the most room?"),
    ("size", "smallest"): ("Which object would fit into the smallest box?", "Which one takes up the least room?"),
    ("plural", "color"): (
        "Which objects have the color of {hue}?",
        "Which ones match {hue} in color?",
    ),
    ("plural", "shape"): ("Which objects {forms}?", "Which ones of these {forms}?"),
}
"""(evidence, variant) to questions that name a target by what it implies."""

HUES: dict[str, tuple[str, ...]] = {
    "red": ("a ripe tomato", "a strawberry", "a fire engine"),
    "green": ("grass", "a fresh leaf", "a cucumber"),
    "blue": ("a clear sky", "the ocean", "blueberries"),
    "yellow": ("a banana", "a lemon", "a sunflower"),
    "purple": ("a plum", "an eggplant", "lavender"),
    "white": ("snow", "milk", "a polar bear"),
}
"""Color words to things known for that color."""

FORMS: dict[str, tuple[tuple[str, str], ...]] = {
    "circle": (
        ("has no corners", "have no corners"),
        ("could roll like a wheel", "could roll like a wheel"),
        ("resembles a coin", "resemble a coin"),
    ),
    "square": (
        ("has four equal sides", "have four equal sides"),
        ("resembles a floor tile", "resemble a floor tile"),
        ("could be one face of a die", "could be one face of a die"),
    ),
    "triangle": (
        ("has three sides", "have three sides"),
        ("resembles a slice of pizza", "resemble a slice of pizza"),
        ("looks like a pyramid from the side", "look like a pyramid from the side"),
    ),
    "star": (
        ("is seen in the night sky", "are seen in the night sky"),
        ("could top a Christmas tree", "could top a Christmas tree"),
        ("has five points", "have five points"),
    ),
}
"""Shape words to (singular, plural) verb phrases that are true of that shape alone."""
