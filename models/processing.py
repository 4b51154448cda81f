"""From clips to model inputs: chat template, processor, media. Runs on the CPU and needs no weights."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from transformers import processing_utils

from datamodules.records import Clip
from models.prompts import choose_template

_NAMES_THE_VIDEO = hasattr(processing_utils, "OmniModalProcessorMixin")
"""Whether this release of transformers is told which video a sound belongs to; earlier ones interleave all sound."""

PROMPT = "prompt"
"""Under which name a clip's own question is left with it."""


@dataclass(frozen=True)
class Prompt:
    """One question as the processor made it, on one device.

    Attributes:
        clip_id: Which clip it asks about.
        input_ids: Token ids with placeholders where sound and frames go.
        features: Pixels, sound features and their grids, as the towers take them.
        has_audio: Whether sound is interleaved with the frames.
    """

    clip_id: str
    input_ids: Int[Tensor, "1 prompt"]
    features: dict[str, Tensor]
    has_audio: bool

    def to(self, device: torch.device) -> Prompt:
        """The same prompt on another device."""
        features = {name: value.to(device) for name, value in self.features.items()}
        return replace(self, input_ids=self.input_ids.to(device), features=features)


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt after the towers: what the language model starts from.

    Attributes:
        clip_id: Which clip it asks about.
        input_ids: Token ids, on the CPU; placeholders where media stand.
        embeddings: Input embeddings, media included.
        positions: M-RoPE positions (time, height, width).
        next_position: Position of the first completion token, the same on all three axes.
    """

    clip_id: str
    input_ids: Int[Tensor, "1 prompt"]
    embeddings: Float[Tensor, "1 prompt hidden"]
    positions: Int[Tensor, "3 1 prompt"]
    next_position: int


class PromptBuilder:
    """Asks a question about a clip in the form the thinker was trained with.

    Args:
        processor: A Qwen2_5OmniProcessor.
        config: The thinker's configuration; how positions count time.
        template: Name of the prompt template, or auto.
        max_keyframes: Most moments that are asked for.
    """

    def __init__(self, processor: Any, config: Any, *, template: str = "auto", max_keyframes: int = 4) -> None:  # noqa: ANN401
        self.processor = processor
        self.template = template
        self.max_keyframes = max_keyframes
        self._has_warned = False
        self._timing = {
            "position_id_per_seconds": config.position_id_per_seconds,
            "seconds_per_chunk": float(config.seconds_per_chunk),
        }

    @property
    def tokenizer(self) -> Any:  # noqa: ANN401 (a transformers class without useful types)
        """The processor's tokenizer."""
        return self.processor.tokenizer

    def from_clip(self, clip: Clip) -> Prompt:
        """Ask a clip's own question about its glance and its sound.

        Frames and sound are interleaved in time as the released model was trained; a silent clip has frames only. The
        pixel budget is the clip's: the processor only rounds to whole patches.
        """
        template = choose_template(self.template, clip)
        question = template.render(clip, max_keyframes=self.max_keyframes)
        return self.from_question(clip, question, system=template.system)

    def read_ahead(self, clip: Clip) -> None:
        """Ask a clip's question now and leave it with the clip, for `Reasoner.prepare`."""
        clip.ahead[PROMPT] = self.from_clip(clip)

    def from_question(self, clip: Clip, question: str, *, system: str = "") -> Prompt:
        """Ask anything about a clip's glance and its sound.

        The sound extractor takes so many seconds and no more; a warning names the first clip that has more.
        """
        glance, audio = clip.glance, clip.audio
        if audio is not None:
            self._warn_of_unheard_sound(clip.id, len(audio))
        video = {"fps": glance.fps, "size": self._pixel_range(clip.budget.glance_max_pixels)}
        sound: dict[str, Any] = {} if audio is None else {"audio": [audio]}
        if audio is not None and _NAMES_THE_VIDEO:
            sound |= {"load_audio_from_video": True, "audio_from_video_indices": [0]}
        elif audio is not None:
            video["use_audio_in_video"] = True
        inputs = self._process(
            [self._chat([{"type": "video"}, {"type": "text", "text": question}], system)],
            videos=[torch.from_numpy(glance.frames).permute(0, 3, 1, 2)],
            videos_kwargs=video,
            **sound,
        )
        inputs.pop("attention_mask")
        return Prompt(clip.id, inputs.pop("input_ids"), inputs, has_audio=audio is not None)

    def media_only(self, clip: Clip, *, system: str = "") -> Prompt:
        """System text and media up to the place where the question would stand, for rows that share it."""
        prompt = self.from_question(clip, "", system=system)
        end_id = self.tokenizer.convert_tokens_to_ids(self.processor.vision_eos_token)
        last = int((prompt.input_ids[0] == end_id).nonzero()[-1])
        return replace(prompt, input_ids=prompt.input_ids[:, : last + 1])

    def images_only(self, images: Sequence[UInt8[np.ndarray, "height width 3"]]) -> dict[str, Tensor]:
        """What stands before a question about an image, up to the image's end: one row per image, all of one size."""
        text = self._chat([{"type": "image"}, {"type": "text", "text": ""}], "")
        before, end, _ = text.partition(self.processor.vision_eos_token)
        return self._process([before + end] * len(images), images=list(images))

    def turn_ids(self, question: str, *, system: str = "", media: Literal["video", "image"] = "video") -> list[int]:
        """Tokens that follow the media when this is asked, up to where the answer begins."""
        text = self._chat([{"type": media}, {"type": "text", "text": question}], system)
        # The first end is that of the media; a question may spell out another one.
        after_media = text.partition(self.processor.vision_eos_token)[2]
        ids: list[int] = self.tokenizer(after_media, add_special_tokens=False).input_ids
        return ids

    def answer_ids(self, answer: str) -> list[int]:
        """Tokens of an answer, the end of turn included."""
        ids: list[int] = self.tokenizer(answer, add_special_tokens=False).input_ids
        return [*ids, int(self.tokenizer.eos_token_id)]

    def from_images(self, asked: Sequence[tuple[UInt8[np.ndarray, "height width 3"], str]]) -> dict[str, Tensor]:
        """Ask about single images, one per row, left-padded; the inputs are those of the thinker's own generate."""
        texts = [self._chat([{"type": "image"}, {"type": "text", "text": question}], "") for _, question in asked]
        return self._process(texts, images=[image for image, _ in asked], padding=True, padding_side="left")

    def _process(self, text: list[str], **media: Any) -> dict[str, Tensor]:  # noqa: ANN401
        # Sound features are a matrix product that ends in NumPy, which has no bfloat16: no mixed precision here.
        with torch.autocast("cpu", enabled=False):
            return dict(self.processor(text=text, return_tensors="pt", **self._timing, **media))

    def _chat(self, content: list[dict[str, str]], system: str) -> str:
        conversation: list[dict[str, Any]] = [{"role": "user", "content": content}]
        if system:
            conversation.insert(0, {"role": "system", "content": [{"type": "text", "text": system}]})
        text = self.processor.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
        return str(text[0] if isinstance(text, list) else text)

    def _warn_of_unheard_sound(self, clip_id: str, samples: int) -> None:
        """Say once that sound beyond the extractor's window, which the library cuts off, is not heard."""
        extractor = self.processor.feature_extractor
        if self._has_warned or samples <= extractor.n_samples:
            return
        self._has_warned = True
        given, heard = samples / extractor.sampling_rate, extractor.n_samples / extractor.sampling_rate
        warnings.warn(
            f"{clip_id}: the model hears the first {heard:g} of {given:g} seconds of sound, and sees frames of all of "
            "it; the same holds for every clip that is as long. Cut the file into parts to ask about all of its sound.",
            stacklevel=2,
        )

    def _pixel_range(self, max_pixels: int) -> dict[str, int]:
        """Size setting for the processor: at least one merged patch, at most the budget.

        The processor class has a default of its own that overrides the saved one and would enlarge small frames.
        """
        video = self.processor.video_processor
        return {"shortest_edge": (video.patch_size * video.merge_size) ** 2, "longest_edge": max_pixels}
