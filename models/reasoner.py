"""System 1: the thinker of Qwen2.5-Omni with a LoRA adapter on its language model.

The same class serves the tiny embedded weights, the released 3B and 7B ones and any folder that `save_pretrained`
wrote. Everything that depends on the clip alone is done by `encode`, once: processor, vision tower, audio tower. What
comes out is one row of embeddings that sampling, log-probabilities and the reference pass all start from.

The towers and the base weights are frozen. The reference policy of the KL penalty, and the box grounder of the real
configurations, are these very weights with the adapter switched off; there is no second copy.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import Qwen2_5OmniProcessor, Qwen2_5OmniThinkerForConditionalGeneration

from datamodules.errors import ConfigError
from datamodules.records import Clip
from models.loading import find_weights
from models.prompts import choose_template

_REQUIRED_FILES = (
    ("config.json",),
    ("model.safetensors", "model.safetensors.index.json"),
    ("tokenizer.json", "vocab.json"),
    ("preprocessor_config.json", "processor_config.json"),
)


@dataclass(frozen=True)
class LoRA:
    """The adapter that is trained.

    Attributes:
        r: Rank.
        alpha: Scale; the update is multiplied by alpha / r.
        dropout: Dropout in the adapter during the update; 0 keeps the sampled and the trained policy the same.
        target_modules: Regular expression over module names; by default every linear layer of the language model.
    """

    r: int = 16
    alpha: int = 32
    dropout: float = 0.0
    target_modules: str = r".*language_model.*\.(q|k|v|o|gate|up|down)_proj"


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
        embeddings: Input embeddings, media included.
        positions: M-RoPE positions (time, height, width).
        next_position: Position of the first completion token, the same on all three axes.
    """

    clip_id: str
    embeddings: Float[Tensor, "1 prompt hidden"]
    positions: Int[Tensor, "3 1 prompt"]
    next_position: int


class Reasoner(nn.Module):
    """Watches the whole clip at low resolution and writes a plan.

    Args:
        path: Folder with model and processor, or a hub id such as Qwen/Qwen2.5-Omni-7B.
        lora: The adapter to train.
        adapter: Folder of a trained PEFT adapter to start from; None starts from a fresh one, which changes nothing.
        template: Prompt template: refavs, revos, short, or auto for the one that fits the clip's task.
        max_keyframes: Most moments that are asked for and used.
        dtype: Type of the frozen base weights; the adapter is always float32.
        attention: Attention implementation of transformers.
        gradient_checkpointing: Recompute layer activations in the backward pass to save memory.
    """

    def __init__(
        self,
        path: str = "weights/tiny/reasoner",
        *,
        lora: LoRA = LoRA(),  # noqa: B008 (frozen, and the command line shows its fields)
        adapter: str | None = None,
        template: str = "auto",
        max_keyframes: int = 4,
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
        attention: str = "sdpa",
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.path = path
        self.lora = lora
        self.adapter = adapter
        self.template = template
        self.max_keyframes = max_keyframes
        self.dtype = dtype
        self.attention = attention
        self.gradient_checkpointing = gradient_checkpointing
        self.processor: Any = None
        self.model: Any = None

    def load(self) -> None:
        """Read processor and weights, freeze the base, attach the adapter. A second call does nothing.

        Raises:
            ConfigError: The folder is missing, incomplete, or holds another kind of model.
        """
        if self.model is not None:
            return
        folder = find_weights(self.path, flag="model.reasoner.path", required=_REQUIRED_FILES)
        self.processor = Qwen2_5OmniProcessor.from_pretrained(folder)
        base = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(
            folder, dtype=getattr(torch, self.dtype), attn_implementation=self.attention
        )
        self.attach(base)

    def attach(self, base: nn.Module) -> None:
        """Freeze a thinker and put the adapter on it.

        Raises:
            ConfigError: The adapter folder does not exist.
        """
        base.requires_grad_(False)
        if self.gradient_checkpointing:
            base.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]
        if self.adapter is None:
            config = LoraConfig(
                r=self.lora.r,
                lora_alpha=self.lora.alpha,
                lora_dropout=self.lora.dropout,
                target_modules=self.lora.target_modules,
                task_type="CAUSAL_LM",
            )
            self.model = get_peft_model(base, config)
        elif (Path(self.adapter) / "adapter_config.json").is_file():
            self.model = PeftModel.from_pretrained(base, self.adapter, is_trainable=True)
        else:
            raise ConfigError(
                f"model.reasoner.adapter: expected a folder with adapter_config.json, found {self.adapter!r}. "
                "Point --model.reasoner.adapter at an exported adapter, or leave it out to start from a fresh one."
            )

    @property
    def thinker(self) -> Any:  # noqa: ANN401 (a transformers class without useful types)
        """The Hugging Face model, adapter layers inside."""
        return self.model.get_base_model()

    @property
    def language_model(self) -> nn.Module:
        """The decoder stack, without the output head."""
        module: nn.Module = self.thinker.model.language_model
        return module

    @property
    def lm_head(self) -> nn.Linear:
        """Output head: hidden states to logits."""
        head: nn.Linear = self.thinker.lm_head
        return head

    @property
    def embed_tokens(self) -> nn.Embedding:
        """Token embeddings."""
        embedding: nn.Embedding = self.thinker.model.get_input_embeddings()
        return embedding

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.embed_tokens.weight.device

    @property
    def end_of_turn_ids(self) -> tuple[int, ...]:
        """Tokens that end a completion; the sampled one is part of it and is trained."""
        ids = self.thinker.generation_config.eos_token_id
        found = ids if isinstance(ids, list) else [ids]
        return tuple(dict.fromkeys([*[i for i in found if i is not None], self.processor.tokenizer.eos_token_id]))

    @property
    def pad_id(self) -> int:
        """Token that fills rows; it is never attended to."""
        return int(self.processor.tokenizer.pad_token_id)

    def decode(self, ids: Int[Tensor, "tokens"]) -> str:
        """Text of a completion without special tokens."""
        return str(self.processor.tokenizer.decode(ids, skip_special_tokens=True))

    def prepare(self, clip: Clip) -> Prompt:
        """Run the processor over a clip's glance and sound, on the CPU.

        Frames and sound are interleaved in time as the released model was trained; a silent clip has frames only. The
        pixel budget is the clip's: the processor only rounds to whole patches.
        """
        template = choose_template(self.template, clip)
        question = template.render(clip, max_keyframes=self.max_keyframes)
        content = [{"type": "video"}, {"type": "text", "text": question}]
        glance, audio = clip.glance, clip.audio
        inputs = self._process(
            [{"role": "user", "content": content}],
            template.system,
            videos=[torch.from_numpy(glance.frames).permute(0, 3, 1, 2)],
            videos_kwargs={"fps": glance.fps, "size": self._pixel_range(clip.budget.glance_max_pixels)},
            **({} if audio is None else {"audio": [audio], "audio_from_video_indices": [0]}),
            load_audio_from_video=audio is not None,
        )
        inputs.pop("attention_mask")
        return Prompt(clip.id, inputs.pop("input_ids"), dict(inputs), has_audio=audio is not None)

    def encode(self, prompt: Prompt) -> EncodedPrompt:
        """Run the frozen towers over a prompt, once, and place their features among the token embeddings."""
        prompt = prompt.to(self.device)
        model, features, ids = self.thinker.model, prompt.features, prompt.input_ids
        with torch.no_grad():
            embeddings = model.get_input_embeddings()(ids)
            if "pixel_values_videos" in features:
                seen = model.get_video_features(
                    features["pixel_values_videos"].to(embeddings.dtype), features["video_grid_thw"]
                )
                embeddings = _place(embeddings, ids == model.config.video_token_id, torch.cat(list(seen.pooler_output)))
            if "input_features" in features:
                heard = model.get_audio_features(
                    features["input_features"].to(embeddings.dtype), features["feature_attention_mask"]
                )
                embeddings = _place(embeddings, ids == model.config.audio_token_id, heard.last_hidden_state)
            positions, _ = model.get_rope_index(
                ids,
                None,
                features.get("video_grid_thw"),
                torch.ones_like(ids),
                prompt.has_audio,
                features["feature_attention_mask"].sum(-1) if prompt.has_audio else None,
                features.get("video_second_per_grid"),
            )
        return EncodedPrompt(prompt.clip_id, embeddings, positions.long(), int(positions.max()) + 1)

    @contextlib.contextmanager
    def reference(self) -> Iterator[None]:
        """The base model inside the block: same weights, adapter off."""
        with self.model.disable_adapter():
            yield

    @torch.no_grad()
    def generate_text(
        self, images: Sequence[UInt8[np.ndarray, "height width 3"]], question: str, *, max_new_tokens: int = 256
    ) -> list[str]:
        """Answer the same question greedily for each image on its own.

        Args:
            images: RGB frames; each is one conversation.
            question: User text after the image.
            max_new_tokens: Longest answer in tokens.

        Returns:
            One text per image, without special tokens; no images give an empty list.
        """
        if not images:
            return []
        content = [{"type": "image"}, {"type": "text", "text": question}]
        conversation = [{"role": "user", "content": content}]
        answers = []
        for image in images:
            inputs = self._process(conversation, "", images=[image])
            inputs = {name: value.to(self.device) for name, value in inputs.items()}
            prompt_length = inputs["input_ids"].shape[1]
            out = self.thinker.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
            answers.append(self.decode(out[0, prompt_length:]))
        return answers

    def _process(self, conversation: list[dict[str, Any]], system: str, **media: Any) -> dict[str, Tensor]:  # noqa: ANN401
        if system:
            conversation = [{"role": "system", "content": [{"type": "text", "text": system}]}, *conversation]
        text = self.processor.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
        config = self.thinker.config
        return dict(
            self.processor(
                text=[text] if isinstance(text, str) else text,
                return_tensors="pt",
                position_id_per_seconds=config.position_id_per_seconds,
                seconds_per_chunk=float(config.seconds_per_chunk),
                **media,
            )
        )

    def _pixel_range(self, max_pixels: int) -> dict[str, int]:
        """Size setting for the processor: at least one merged patch, at most the budget.

        The processor class has a default of its own that overrides the saved one and would enlarge small frames.
        """
        video = self.processor.video_processor
        return {"shortest_edge": (video.patch_size * video.merge_size) ** 2, "longest_edge": max_pixels}


def _place(
    embeddings: Float[Tensor, "1 prompt hidden"], where: Tensor, features: Float[Tensor, "media hidden"]
) -> Float[Tensor, "1 prompt hidden"]:
    """Put tower features where their placeholder tokens stand.

    Raises:
        ValueError: There are more or fewer features than placeholders, as happens when a prompt was cut.
    """
    if int(where.sum()) != len(features):
        raise ValueError(
            f"expected {int(where.sum())} media features, one per placeholder token, found {len(features)}"
        )
    return embeddings.masked_scatter(where.unsqueeze(-1), features.to(embeddings.dtype))
