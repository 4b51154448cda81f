"""Random detectors of every family, saved as released ones are, small enough for tests."""

from pathlib import Path

import torch
from transformers import (
    BertConfig,
    BertTokenizer,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessor,
    GroundingDinoProcessor,
    MMGroundingDinoConfig,
    MMGroundingDinoForObjectDetection,
    Owlv2Config,
    Owlv2ForObjectDetection,
    Owlv2ImageProcessor,
    Owlv2Processor,
    SwinConfig,
)

from models.tiny.detector import DetectorSizes, build_detector, build_detector_processor

_LINES = ["the red circle", "a blue square", "the object"]
_SIZES = DetectorSizes(
    side=64, patch=16, vision_hidden=24, vision_layers=1, vision_feed_forward=32, text_hidden=16, text_layers=1
)
_WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "?", "the", "a", "red", "circle", "blue", "square"]


def save_owlvit(folder: Path) -> None:
    """A 4 x 4 grid whose boxes are the built-in ones: the box head adds nothing."""
    processor = build_detector_processor(_LINES, _SIZES)
    detector = build_detector(processor, _SIZES)
    detector.box_head.dense2.weight.data.zero_()
    _save(folder, detector, processor)


def save_owlv2(folder: Path) -> None:
    """The same grid for a family that pads images to a square."""
    tokenizer = build_detector_processor(_LINES, _SIZES).tokenizer
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 32,
        "eos_token_id": tokenizer.eos_token_id,
    }
    vision = {
        "hidden_size": 24,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 64,
        "patch_size": 16,
    }
    torch.manual_seed(0)
    detector = Owlv2ForObjectDetection(Owlv2Config(text_config=text, vision_config=vision, projection_dim=16))
    detector.box_head.dense2.weight.data.zero_()
    detector.box_head.dense2.bias.data.zero_()
    image_processor = Owlv2ImageProcessor(size={"height": 64, "width": 64})
    _save(folder, detector, Owlv2Processor(image_processor, tokenizer))


def save_grounding_dino(folder: Path, *, is_mm: bool = False) -> None:
    """Two stages, twelve boxes per description."""
    backbone = SwinConfig(
        image_size=64,
        embed_dim=16,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 2, 2],
        window_size=4,
        out_features=["stage2", "stage3", "stage4"],
    )
    text = BertConfig(
        vocab_size=len(_WORDS),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    config_class = MMGroundingDinoConfig if is_mm else GroundingDinoConfig
    config = config_class(
        backbone_config=backbone.to_dict(),
        text_config=text.to_dict(),
        num_queries=12,
        encoder_layers=1,
        decoder_layers=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        d_model=32,
        max_text_len=32,
    )
    torch.manual_seed(0)
    detector = (MMGroundingDinoForObjectDetection if is_mm else GroundingDinoForObjectDetection)(config)
    image_processor = GroundingDinoImageProcessor(size={"shortest_edge": 64, "longest_edge": 128})
    tokenizer = BertTokenizer(vocab={word: index for index, word in enumerate(_WORDS)})
    _save(folder, detector, GroundingDinoProcessor(image_processor, tokenizer))


def save_mm_grounding_dino(folder: Path) -> None:
    """The MM variant, which shares Grounding DINO's processor."""
    save_grounding_dino(folder, is_mm=True)


FAMILIES = {
    "owlvit": save_owlvit,
    "owlv2": save_owlv2,
    "grounding-dino": save_grounding_dino,
    "mm-grounding-dino": save_mm_grounding_dino,
}


def _save(folder: Path, detector: torch.nn.Module, processor: object) -> None:
    detector.save_pretrained(folder)
    processor.save_pretrained(folder)
