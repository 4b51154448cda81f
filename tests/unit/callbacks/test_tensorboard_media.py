"""Media reach every logger that can take them, and no other."""

import numpy as np
from stage import Logger, Writer, trainer_like

from callbacks.media import escape, log_audio, log_image, log_text, markdown_table, takes_media


def test_loggers_without_the_method_are_passed_over() -> None:
    writer = Writer()
    trainer = trainer_like([Logger(object()), Logger(writer), Logger(None)])
    log_text(trainer, "a", "text", 1)
    log_image(trainer, "b", np.zeros((2, 3, 3), np.uint8), 2)
    log_audio(trainer, "c", np.array([-2.0, 0.5], np.float32), 3)
    assert writer.texts == {"a": ("text", 1)}
    assert writer.images["b"][0].shape == (2, 3, 3)
    assert writer.sounds["c"][0].tolist() == [[-1.0, 0.5]], "one channel, cut to -1..1"


def test_pictures_are_drawn_only_where_somebody_sees_them() -> None:
    assert takes_media(trainer_like([Logger(Writer())]))
    assert not takes_media(trainer_like([Logger(object())]))
    assert not takes_media(trainer_like([Logger(Writer())], is_global_zero=False))


def test_model_text_cannot_break_a_table() -> None:
    assert escape("<think>a|b</think>\n`c` &lt;") == "&lt;think>a&#124;b&lt;/think><br>&#96;c&#96; &amp;lt;"


def test_a_markdown_table_has_a_rule_under_its_header() -> None:
    assert markdown_table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"
