import pytest
import torch
from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

from models.tiny.detector import DetectorSizes, build_detector, build_detector_processor, grid_positions

SMALL = DetectorSizes(
    side=32, patch=8, vision_hidden=24, vision_layers=1, vision_feed_forward=32, text_hidden=16, text_layers=1
)
LINES = ["the red circle", "the blue square", "a red square"] * 5


@pytest.fixture(scope="module")
def processor():
    return build_detector_processor(LINES, SMALL)


def test_the_end_of_text_is_the_largest_id_and_padding_is_0(processor):
    """The text tower reads the position of the largest id, and takes a query that starts with 0 for padding."""
    tokenizer = processor.tokenizer
    assert tokenizer.eos_token_id == len(tokenizer) - 1
    assert tokenizer.pad_token_id == 0
    ids = tokenizer(["red", "the blue square"], padding=True)["input_ids"]
    assert all(row.count(tokenizer.eos_token_id) == 1 for row in ids)
    assert all(row[0] == tokenizer.bos_token_id for row in ids)


def test_known_words_are_one_token_and_case_does_not_matter(processor):
    ids = processor.tokenizer(["the RED Circle", "the red circle"])["input_ids"]
    assert ids[0] == ids[1]
    assert len(ids[0]) == 5


@pytest.mark.parametrize("text", ["", "xyzzy 123 !?", "日本語 émoji 🎈", "<|endoftext|> red"])
def test_any_text_has_a_spelling(processor, text):
    ids = processor.tokenizer(text)["input_ids"]
    assert max(ids) == processor.tokenizer.eos_token_id
    if "red" not in text:
        assert ids.count(processor.tokenizer.eos_token_id) == 1


def test_saved_and_read_back_it_says_the_same(processor, tmp_path):
    detector = build_detector(processor, SMALL).eval()
    detector.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again, reader = (
        AutoModelForZeroShotObjectDetection.from_pretrained(tmp_path),
        AutoProcessor.from_pretrained(tmp_path),
    )
    image = torch.randint(0, 255, (40, 60, 3), dtype=torch.uint8).numpy()
    outputs = []
    for model, use in ((detector, processor), (again.eval(), reader)):
        inputs = use(images=image, text=["the red circle", "unknown words"], return_tensors="pt")
        with torch.no_grad():
            outputs.append(model(**inputs))
    assert torch.equal(outputs[0].logits, outputs[1].logits)
    assert torch.equal(outputs[0].pred_boxes, outputs[1].pred_boxes)


def test_the_seed_decides_the_starting_values_and_leaves_the_global_generator_alone(processor):
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, second, other = (build_detector(processor, SMALL, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    weights = [model.box_head.dense0.weight for model in (first, second, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_logits_start_low_and_their_scale_cannot_depend_on_the_patch(processor):
    """Scale elu(13) + 1 = 14 and shift -0.5: a patch and a text that have nothing in common start at -7."""
    detector = build_detector(processor, SMALL)
    inputs = processor(images=torch.zeros(32, 32, 3).numpy(), text=["red"], return_tensors="pt")
    with torch.no_grad():
        logits = detector(**inputs).logits
    assert logits.mean() == pytest.approx(-7, abs=4)
    assert not detector.class_head.logit_scale.weight.requires_grad
    assert not detector.class_head.logit_scale.weight.any()


def test_grid_positions_tell_every_patch_apart():
    """Row and column of a 4 x 4 grid: 16 different rows of the table, the left-over column 0."""
    table = grid_positions(4, 9)
    assert table.shape == (16, 9)
    assert torch.equal(table[:, 8], torch.zeros(16))
    distances = torch.cdist(table, table) + torch.eye(16)
    assert distances.min() > 0.1
