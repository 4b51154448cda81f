import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from detector_families import FAMILIES
from transformers import BertConfig, BertForMaskedLM

import models.detector
from datamodules.errors import ConfigError
from datamodules.records import Clip, Frames
from models.detector import DetectorGrounder, dino_text, shared_backbone
from models.grounder import GroundingRequest

OPEN = {"threshold": 0.0, "nms_iou": 1.0, "max_boxes": 100}
"""Settings under which every box of a detector comes out."""


class NoiseFrames(Frames):
    """Three wide frames of noise; close-ups are as large as asked for."""

    def __init__(self, height: int = 48, width: int = 96) -> None:
        self.count, self.fps = 3, 1.0
        self.pixels = np.random.default_rng(0).integers(0, 255, (3, height, width, 3), dtype=np.uint8)

    @property
    def size(self) -> tuple[int, int]:
        return self.pixels.shape[1:3]

    def read(self, indices: Sequence[int], *, max_pixels: int | None = None) -> np.ndarray:
        return self.pixels[list(indices)]


@pytest.fixture(scope="session")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("detectors")
    for name, save in FAMILIES.items():
        save(root / name)
    return {name: root / name for name in FAMILIES}


@pytest.fixture(scope="session")
def clip() -> Clip:
    return Clip(id="noise", task="video", split="", kind="", expression="", frames=NoiseFrames())


def loaded(folder: Path, **settings) -> DetectorGrounder:
    grounder = DetectorGrounder(str(folder), **settings)
    grounder.load()
    return grounder


def grid(side: float, height: float) -> list[list[float]]:
    """OWL's built-in boxes on a 4 x 4 grid that spans `side` x `height` pixels: one cell large, centered on the lower
    right corner of each cell."""
    cells = [((column + 1) / 4, (row + 1) / 4) for row in range(4) for column in range(4)]
    return [[(x - 1 / 8) * side, (y - 1 / 8) * height, (x + 1 / 8) * side, (y + 1 / 8) * height] for x, y in cells]


def clipped(boxes: list[list[float]], height: float, width: float) -> np.ndarray:
    boxes = np.clip(boxes, 0, [width, height, width, height])
    return np.array([box for box in boxes.tolist() if box[0] < box[2] and box[1] < box[3]])


@pytest.mark.parametrize(
    ("family", "boxes"),
    [("owlvit", grid(96, 48)), ("owlv2", grid(96, 96))],
)
def test_owl_boxes_span_the_stretched_or_the_padded_image(folders, clip, family, boxes):
    """OWL-ViT stretches a 48 x 96 image to a square; OWLv2 pads it below to 96 x 96 and its lower boxes fall off."""
    (found,) = loaded(folders[family], **OPEN).ground(clip, [GroundingRequest(0, "the red circle")])
    expected = clipped(boxes, 48, 96)
    order, expected_order = np.lexsort(found.boxes.T), np.lexsort(expected.T)
    np.testing.assert_allclose(found.boxes[order], expected[expected_order], atol=0.02)


@pytest.mark.parametrize("family", ["grounding-dino", "mm-grounding-dino"])
def test_dino_boxes_are_shares_of_the_image(folders, clip, family):
    """The model itself, called by hand with "the red circle.", and its best box scaled by hand."""
    grounder = loaded(folders[family], threshold=0.0, max_boxes=1)
    inputs = grounder._processor(images=[clip.frames.pixels[1]], text=["the red circle."], return_tensors="pt")
    with torch.no_grad():
        outputs = grounder.model(**inputs)
    scores = outputs.logits.sigmoid().amax(-1)[0]
    x, y, width, height = (outputs.pred_boxes[0, scores.argmax()] * torch.tensor([96, 48, 96, 48])).tolist()
    (found,) = grounder.ground(clip, [GroundingRequest(1, "The Red  circle.")])
    expected = np.clip([x - width / 2, y - height / 2, x + width / 2, y + height / 2], 0, [96, 48, 96, 48])
    np.testing.assert_allclose(found.boxes[0], expected, rtol=1e-4, atol=1e-3)
    assert found.scores[0] == pytest.approx(float(scores.max()), rel=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_gives_what_single_requests_give(folders, clip, family):
    requests = [
        GroundingRequest(frame, text) for frame, text in ((0, "the red circle"), (2, "a square"), (0, "blue"), (1, "x"))
    ]
    grounder = loaded(folders[family], **OPEN)
    together = grounder.ground(clip, requests)
    for request, answer in zip(requests, together, strict=True):
        (alone,) = grounder.ground(clip, [request])
        assert alone.frame == answer.frame
        np.testing.assert_allclose(answer.scores, alone.scores, atol=1e-5)
        np.testing.assert_allclose(answer.boxes[:3], alone.boxes[:3], atol=1e-2)


@pytest.mark.parametrize("family", FAMILIES)
def test_different_descriptions_get_different_scores(folders, clip, family):
    requests = [GroundingRequest(0, "the red circle"), GroundingRequest(0, "a blue square")]
    one, other = loaded(folders[family], **OPEN).ground(clip, requests)
    assert np.abs(np.sort(one.scores)[-5:] - np.sort(other.scores)[-5:]).max() > 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_images_go_through_the_vision_backbone_once_however_many_descriptions(folders, clip, family):
    grounder = loaded(folders[family])
    is_owl = family.startswith("owl")
    backbone = grounder.model.base_model.vision_model if is_owl else grounder.model.model.backbone.conv_encoder
    seen = []
    backbone.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(len(args[0] if args else kwargs["pixel_values"])), with_kwargs=True
    )
    grounder.ground(clip, [GroundingRequest(frame, text) for text in ("a", "b", "c") for frame in (0, 1)])
    assert seen == [2]


def test_sharing_the_backbone_changes_no_answer(folders, clip, monkeypatch):
    requests = [GroundingRequest(frame, text) for frame in (0, 2) for text in ("red", "blue", "a square")]
    grounder = loaded(folders["grounding-dino"], **OPEN)
    shared = grounder.ground(clip, requests)
    monkeypatch.setattr(models.detector, "shared_backbone", lambda *_: contextlib.nullcontext())
    for one, other in zip(shared, grounder.ground(clip, requests), strict=True):
        np.testing.assert_allclose(one.boxes, other.boxes, atol=1e-3)


def test_a_small_batch_size_changes_no_answer(folders, clip):
    requests = [GroundingRequest(frame, text) for frame in (0, 2) for text in ("red", "blue", "a square")]
    large = loaded(folders["grounding-dino"], **OPEN).ground(clip, requests)
    small = loaded(folders["grounding-dino"], batch_size=2, **OPEN).ground(clip, requests)
    for one, other in zip(large, small, strict=True):
        np.testing.assert_allclose(one.boxes, other.boxes, atol=1e-3)


def test_hooks_are_gone_after_the_shared_pass_even_when_it_fails():
    backbone = torch.nn.Identity()
    with pytest.raises(ZeroDivisionError), shared_backbone(backbone, torch.tensor([0, 0, 1])):
        raise ZeroDivisionError
    assert torch.equal(backbone(torch.arange(3)), torch.arange(3))


def test_shared_rows_get_their_own_image():
    """Rows 0 and 1 show image 0, row 2 image 1: the backbone sees two images, and its caller three rows."""
    backbone, seen = torch.nn.Identity(), []
    backbone.register_forward_hook(lambda _, args, __: seen.append(args[0]))
    rows = torch.tensor([5, 5, 7])
    with shared_backbone(backbone, torch.tensor([0, 0, 1])):
        out = backbone(rows)
    assert seen[0].tolist() == [5, 7]
    assert out.tolist() == [5, 5, 7]


@pytest.mark.parametrize("family", FAMILIES)
def test_long_descriptions_are_cut_not_refused(folders, clip, family):
    (found,) = loaded(folders[family], **OPEN).ground(clip, [GroundingRequest(0, "a red circle " * 60)])
    assert np.isfinite(found.boxes).all()


def test_the_prompt_template_goes_around_the_description(folders, clip):
    """A template that spells the question out gives the scores of the question spelled out."""
    (templated,) = loaded(folders["owlvit"], prompt_template="the red {}", **OPEN).ground(
        clip, [GroundingRequest(0, "circle")]
    )
    (plain,) = loaded(folders["owlvit"], **OPEN).ground(clip, [GroundingRequest(0, "the red circle")])
    np.testing.assert_allclose(templated.scores, plain.scores)


def test_close_ups_smaller_than_the_frame_give_boxes_of_the_frame(folders):
    """The same pixels called half as large: boxes are twice as large."""

    class Halved(NoiseFrames):
        @property
        def size(self):
            return 96, 192

    grounder = loaded(folders["owlvit"], **OPEN)
    clip = Clip(id="small", task="video", split="", kind="", expression="", frames=NoiseFrames())
    (small,) = grounder.ground(clip, [GroundingRequest(0, "x")])
    (large,) = grounder.ground(replace(clip, frames=Halved()), [GroundingRequest(0, "x")])
    np.testing.assert_allclose(large.boxes, 2 * small.boxes, rtol=1e-5)


def test_the_detector_is_frozen_and_stays_in_evaluation_mode(folders):
    grounder = loaded(folders["owlvit"])
    grounder.train()
    assert not any(weights.requires_grad for weights in grounder.parameters())
    assert not grounder.model.training


def test_loading_twice_reads_once(folders):
    grounder = loaded(folders["owlvit"])
    model = grounder.model
    grounder.load()
    assert grounder.model is model


@pytest.mark.parametrize(
    ("description", "text"),
    [("A red Circle", "a red circle."), ("the star. ", "the star."), ("a.b  c", "a b c."), ("", ".")],
)
def test_dino_text_is_one_lower_case_phrase_with_a_period(description, text):
    assert dino_text(description) == text


def test_a_missing_folder_is_named():
    with pytest.raises(ConfigError, match=r"model\.grounder\.path: expected a folder or a hub id.*'./nowhere'"):
        DetectorGrounder("./nowhere").load()


def test_everything_that_a_folder_lacks_is_named_at_once(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError) as error:
        DetectorGrounder(str(tmp_path)).load()
    for name in ("model.safetensors", "preprocessor_config.json", "tokenizer.json"):
        assert name in str(error.value)
    assert "save_pretrained" in str(error.value)


def test_a_model_that_is_no_detector_is_refused(folders, tmp_path):
    tiny = {"vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    BertForMaskedLM(BertConfig(**tiny)).save_pretrained(tmp_path)
    for name in ("processor_config.json", "tokenizer.json"):
        (tmp_path / name).write_text((folders["owlvit"] / name).read_text())
    with pytest.raises(ConfigError, match=r"holds a model of type 'bert'; expected a zero-shot object detector \(owl"):
        DetectorGrounder(str(tmp_path)).load()


def test_asking_before_loading_is_an_error():
    with pytest.raises(RuntimeError, match=r"used before its weights are read; call load\(\) first"):
        DetectorGrounder().find(np.zeros((1, 8, 8, 3), np.uint8), [["x"]])


@pytest.mark.parametrize("template", ["a photo", "{} or {}"])
def test_a_template_needs_one_place_for_the_description(template):
    with pytest.raises(ConfigError, match=r"prompt_template is .*; expected exactly one {} where the description goes"):
        DetectorGrounder(prompt_template=template)
