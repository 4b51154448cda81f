"""An OWL-ViT detector and its processor at a size that a laptop trains, made without any download.

The classes are the released ones of `transformers`; only sizes and starting values are ours. Three starting values
differ because training from nothing fails without them:

- the class head scales its logits by ``elu(x) + 1``, which early training, where almost every answer is "no", drives
  to 0, and with it every gradient of the class head; it starts at 14 and does not depend on the patch;
- logits start well below 0, as most answers are "no";
- the box head starts close to its built-in bias, a box of one patch in place.

The text tower reads the position of the largest token id as the end of the text, so the end-of-text token comes last
in the vocabulary.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import CLIPTokenizer, OwlViTConfig, OwlViTForObjectDetection, OwlViTImageProcessor, OwlViTProcessor

_PAD, _START, _END = "<|pad|>", "<|startoftext|>", "<|endoftext|>"
_END_OF_WORD = "</w>"


@dataclass(frozen=True)
class DetectorSizes:
    """Sizes of the tiny detector.

    Attributes:
        side: Side in pixels that images are resized to.
        patch: Side of a patch in pixels; every patch predicts one box.
        vision_hidden: Width of the vision tower.
        vision_layers: Its layers.
        vision_heads: Its heads.
        vision_feed_forward: Width of its feed-forward layers.
        text_hidden: Width of the text tower, and of the space in which patches and texts are compared.
        text_layers: Its layers.
        text_heads: Its heads.
        text_length: Longest text in tokens; longer ones are cut.
        vocabulary: Most tokens that are learned; the bytes come on top.
    """

    side: int = 112
    patch: int = 8
    vision_hidden: int = 96
    vision_layers: int = 4
    vision_heads: int = 3
    vision_feed_forward: int = 256
    text_hidden: int = 64
    text_layers: int = 2
    text_heads: int = 4
    text_length: int = 32
    vocabulary: int = 400


def build_detector_processor(lines: Iterable[str], sizes: DetectorSizes | None = None) -> OwlViTProcessor:
    """The released processor class over a small tokenizer of CLIP's form.

    Args:
        lines: Text that the tokenizer should be short on; any other text still has a spelling in bytes.
        sizes: Image side, text length, vocabulary.
    """
    sizes = sizes or DetectorSizes()
    side = {"height": sizes.side, "width": sizes.side}
    processor_class: Any = OwlViTProcessor
    processor: OwlViTProcessor = processor_class(
        image_processor=OwlViTImageProcessor(size=side, crop_size=side), tokenizer=_build_tokenizer(lines, sizes)
    )
    return processor


def build_detector(
    processor: OwlViTProcessor, sizes: DetectorSizes | None = None, *, seed: int = 0
) -> OwlViTForObjectDetection:
    """A detector of the released class with starting values that it can learn from.

    Args:
        processor: Gives the vocabulary size and the special tokens.
        sizes: How large; the ones that the processor was built with.
        seed: Of the starting values.
    """
    sizes = sizes or DetectorSizes()
    tokenizer = processor.tokenizer
    config = OwlViTConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": sizes.text_hidden,
            "intermediate_size": 2 * sizes.text_hidden,
            "num_hidden_layers": sizes.text_layers,
            "num_attention_heads": sizes.text_heads,
            "max_position_embeddings": sizes.text_length,
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        },
        vision_config={
            "hidden_size": sizes.vision_hidden,
            "intermediate_size": sizes.vision_feed_forward,
            "num_hidden_layers": sizes.vision_layers,
            "num_attention_heads": sizes.vision_heads,
            "image_size": sizes.side,
            "patch_size": sizes.patch,
            "hidden_act": "gelu",
        },
        projection_dim=sizes.text_hidden,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        detector = OwlViTForObjectDetection(config)
        _start(detector)
    return detector


def grid_positions(side: int, width: int) -> Float[Tensor, "patches width"]:
    """Sines and cosines of a patch's column and row, at several frequencies.

    Args:
        side: Patches per row and per column.
        width: Numbers per patch; what is not a multiple of 4 is left 0.
    """
    bands = width // 4
    frequency = 2 * math.pi * torch.exp(torch.linspace(math.log(0.25), math.log(side / 4), bands))
    place = (torch.arange(side) + 0.5) / side
    waves = torch.cat([torch.sin(place[:, None] * frequency), torch.cos(place[:, None] * frequency)], dim=1)
    rows, columns = waves[:, None].expand(side, side, -1), waves[None].expand(side, side, -1)
    table = torch.zeros(side * side, width)
    table[:, : 4 * bands] = torch.cat([columns, rows], dim=-1).reshape(side * side, -1)
    return table


@torch.no_grad()
def _start(detector: OwlViTForObjectDetection) -> None:
    for name, weights in detector.named_parameters():
        if weights.ndim == 2 and "position_embedding" not in name:
            nn.init.normal_(weights, std=weights.shape[1] ** -0.5)
    towers = detector.owlvit
    patches = detector.num_patches_height
    vision = towers.vision_model.embeddings
    vision.position_embedding.weight[1:] = 0.3 * grid_positions(patches, vision.position_embedding.embedding_dim)
    nn.init.normal_(vision.patch_embedding.weight, std=vision.patch_embedding.weight[0].numel() ** -0.5)
    head = detector.class_head
    for layer, bias in ((head.logit_scale, 13.0), (head.logit_shift, -0.5)):
        nn.init.zeros_(layer.weight)
        nn.init.constant_(layer.bias, bias)
    # A scale that depends on the patch finds the collapse again; its bias may learn.
    head.logit_scale.weight.requires_grad_(False)
    nn.init.zeros_(detector.box_head.dense2.bias)
    detector.box_head.dense2.weight.mul_(0.1)


def _build_tokenizer(lines: Iterable[str], sizes: DetectorSizes) -> CLIPTokenizer:
    """Learn merges on text cut as CLIP cuts it, and number the tokens: padding 0, bytes, merges, start, end."""
    pattern = CLIPTokenizer().backend_tokenizer
    learner = Tokenizer(models.BPE(end_of_word_suffix=_END_OF_WORD))
    learner.normalizer, learner.pre_tokenizer = pattern.normalizer, pattern.pre_tokenizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=2 * len(alphabet) + sizes.vocabulary,
        initial_alphabet=alphabet,
        end_of_word_suffix=_END_OF_WORD,
        show_progress=False,
    )
    learner.train_from_iterator(lines, trainer)
    merges: Any = [(first, second) for first, second in json.loads(learner.to_str())["model"]["merges"]]
    tokens = [_PAD, *alphabet, *(symbol + _END_OF_WORD for symbol in alphabet)]
    tokens += [first + second for first, second in merges]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys([*tokens, _START, _END]))}
    return CLIPTokenizer(
        vocab=vocabulary,
        merges=merges,
        pad_token=_PAD,
        bos_token=_START,
        eos_token=_END,
        unk_token=_END,
        model_max_length=sizes.text_length,
    )
