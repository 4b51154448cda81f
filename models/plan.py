"""The answer form: read a completion as a `Plan`, and write a plan as the answer that reads back as it.

A completion is ``<think>…</think><answer>…</answer>``. The answer holds one or several JSON objects, with or without
commas or a surrounding list::

    {"start_time": "00:03.00", "end_time": "00:04.00", "description": "the red circle"}

or, when the target is not in the clip, ``{"absent": true}``. Whatever a model writes is data: nothing here raises on
text, however large, unbalanced or nested, and the work is linear in its length.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence

from datamodules.records import Keyframe, ParseReport, Plan, Segment

MAX_CHARACTERS = 20_000
"""Text beyond this is not read; a plan of a few keyframes is far shorter."""

MAX_DESCRIPTION = 300
"""Longer descriptions are cut; one image is resolved by a phrase, not by an essay."""

_TAGS = ("<think>", "</think>", "<answer>", "</answer>")
_OBJECT = re.compile(r"\{[^{}]*\}")
_CLOCK = re.compile(r"(\d{1,3}):([0-5]?\d(?:\.\d{1,3})?)")


def parse_plan(text: str, *, fps: float, frames: int, max_keyframes: int = 4) -> Plan:
    """Read a completion.

    A segment names the frame shown at its middle. Segments that start outside the clip or end before they start name
    none. Keyframes are the first `max_keyframes` distinct frames in time order; a frame named again is a repeat.

    Args:
        text: The completion, without special tokens.
        fps: Frames per second of the clip.
        frames: Frames in the clip.
        max_keyframes: Most keyframes that go to System 2.

    Returns:
        The plan; `Plan.is_unparsable` when the text gives neither a keyframe nor an absent answer.
    """
    text = text[:MAX_CHARACTERS]
    objects = _read_objects(_answer_body(text))
    segments = [segment for segment in map(_read_segment, objects) if segment is not None]
    duration_s = frames / fps
    usable = sorted(
        (segment for segment in segments if segment.start_s <= segment.end_s and segment.start_s < duration_s),
        key=lambda segment: segment.start_s,
    )
    keyframes: dict[int, Keyframe] = {}
    for segment in usable:
        middle_s = (segment.start_s + min(segment.end_s, duration_s)) / 2
        frame = min(frames - 1, math.floor(middle_s * fps + 1e-6))
        keyframes.setdefault(frame, Keyframe(frame, segment.description, segment.start_s, segment.end_s))
    picked = tuple(keyframes[frame] for frame in sorted(keyframes)[:max_keyframes])
    is_absent = not segments and any(record.get("absent") is True for record in objects)
    report = ParseReport(
        is_well_formed=_has_form(text) and (is_absent or bool(picked)),
        objects=len(objects),
        complete=len(segments),
        in_clip=sum(segment.end_s <= duration_s + 1e-6 for segment in usable),
        moments=len(keyframes),
        problem="" if picked or is_absent else _problem(objects, segments),
    )
    return Plan(picked, is_absent, report, repeats=len(usable) - len(keyframes))


def render_answer(segments: Sequence[Segment], *, think: str = "") -> str:
    """Write a completion that `parse_plan` reads back; no segments means that the target is absent."""
    records: list[dict[str, object]] = [{"absent": True}]
    if segments:
        records = [
            {"start_time": clock(s.start_s), "end_time": clock(s.end_s), "description": s.description} for s in segments
        ]
    answer = ", ".join(json.dumps(record, ensure_ascii=False) for record in records)
    return f"<think>{think}</think><answer>{answer}</answer>"


def clock(time_s: float) -> str:
    """Seconds as ``mm:ss.ff``, hundredths rounded."""
    hundredths = round(time_s * 100)
    return f"{hundredths // 6000:02d}:{hundredths % 6000 // 100:02d}.{hundredths % 100:02d}"


def _has_form(text: str) -> bool:
    """One think block, then one answer block, and nothing else."""
    if any(text.count(tag) != 1 for tag in _TAGS):
        return False
    opened, closed, answer, ended = (text.index(tag) for tag in _TAGS)
    if not opened < closed < answer < ended:
        return False
    outside = text[:opened] + text[closed + len("</think>") : answer] + text[ended + len("</answer>") :]
    return not outside.strip()


def _answer_body(text: str) -> str:
    """What follows the last ``<answer>`` (or the thinking), up to the tag that closes it."""
    start = text.rfind("<answer>")
    body = text[start + len("<answer>") :] if start >= 0 else text.rpartition("</think>")[2]
    return body.partition("</answer>")[0]


def _read_objects(body: str) -> list[dict[str, object]]:
    """Every innermost ``{…}`` that is a JSON object."""
    objects = []
    for match in _OBJECT.finditer(body):
        try:
            record = json.loads(match.group())
        except (ValueError, RecursionError):  # a list nested too deeply inside the braces recurses
            continue
        objects.append(record)
    return objects


def _read_segment(record: dict[str, object]) -> Segment | None:
    start_s, end_s = _read_time(record.get("start_time")), _read_time(record.get("end_time"))
    description = record.get("description")
    if start_s is None or end_s is None or not isinstance(description, str) or not description.strip():
        return None
    return Segment(start_s, end_s, " ".join(description.split())[:MAX_DESCRIPTION])


def _read_time(value: object) -> float | None:
    """Seconds from ``mm:ss.ff``, or from a plain finite number of at least 0."""
    if isinstance(value, str):
        match = _CLOCK.fullmatch(value.strip())
        return int(match[1]) * 60 + float(match[2]) if match else None
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e6:
        return float(value)
    return None


def _problem(objects: list[dict[str, object]], segments: list[Segment]) -> str:
    if not objects:
        return "no JSON object in the answer"
    if not segments:
        return "no object with a valid start_time, end_time and description"
    return "no segment inside the clip"
