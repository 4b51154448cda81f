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
from contextlib import AbstractContextManager
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import Qwen2_5OmniProcessor, Qwen2_5OmniThinkerForConditionalGeneration

from datamodules.records import Clip
from models.adapter import LoRA, put_on, set_values
from models.image_answers import ImageQuestion, Images, plain_answers
from models.image_reading import shared_answers, takes_masks
from models.loading import check_model_type, find_weights, read_model, reading
from models.processing import PROMPT, EncodedPrompt, Prompt, PromptBuilder
from models.sharded_loading import describe, give_memory, local_folder, read_base
from models.sharding import ShardedModel, Sharding
from models.thinker import decoder_of, multimodal_part

_LORA = LoRA()
_REQUIRED_FILES = (
    ("config.json",),
    ("model.safetensors", "model.safetensors.index.json"),
    ("tokenizer.json", "vocab.json"),
    ("preprocessor_config.json", "processor_config.json"),
)
_MODEL_TYPES = ("qwen2_5_omni", "qwen2_5_omni_thinker")


class Reasoner(nn.Module):
    """Watches the whole clip at low resolution and writes a plan.

    Args:
        path: Folder with model and processor, or a hub id such as Qwen/Qwen2.5-Omni-7B.
        lora: The adapter to train; None has none, for recipes that train the base itself.
        adapter: Folder of a trained PEFT adapter to start from; None starts from a fresh one, which changes nothing.
            `reference`, and so the KL penalty, stays the base model without any adapter: the KL begins at the distance
            of this adapter, and beta pulls back towards the base.
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
        lora: LoRA | None = _LORA,
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
        self.builder: PromptBuilder
        self.model: Any = None
        self._sharded: ShardedModel | None = None

    def load(self, sharding: Sharding | None = None) -> None:
        """Read processor and weights, freeze the base, attach the adapter. A second call does nothing.

        Args:
            sharding: How the base is spread over devices; each process then reads its own share only. None reads all.

        Raises:
            ConfigError: The folder is missing, incomplete, lacks weights, or holds another kind of model.
        """
        if self.model is not None:
            return
        flag = "model.reasoner.path"
        path = find_weights(self.path, flag=flag, required=_REQUIRED_FILES)
        check_model_type(path, _MODEL_TYPES, flag=flag, expected="a Qwen2.5-Omni model or its thinker")
        with reading(path, flag=flag):
            processor = Qwen2_5OmniProcessor.from_pretrained(path)
        thinker, dtype = Qwen2_5OmniThinkerForConditionalGeneration, getattr(torch, self.dtype)
        if sharding is None:
            base = read_model(thinker, path, flag=flag, dtype=dtype, attn_implementation=self.attention)
            self.attach(base, processor)
            return
        folder = local_folder(path)
        base = describe(folder, dtype=dtype, attention=self.attention)
        self._adapt(base, processor)
        self._sharded = ShardedModel(base, sharding)
        give_memory(base, sharding)
        read_base(base, folder)
        if self.lora is not None:
            set_values(self.model, self.adapter)

    def attach(self, base: Any, processor: Any) -> None:  # noqa: ANN401 (transformers classes without useful types)
        """Freeze a thinker, put the adapter on it, and take its processor.

        Raises:
            ConfigError: The adapter folder does not exist, or does not fit.
        """
        self._adapt(base, processor)
        if self.lora is not None and self.device.type != "meta":
            set_values(self.model, self.adapter)

    def _adapt(self, base: Any, processor: Any) -> None:  # noqa: ANN401
        self.builder = PromptBuilder(processor, base.config, template=self.template, max_keyframes=self.max_keyframes)
        base.requires_grad_(False)
        if self.lora is not None and self.gradient_checkpointing:
            base.gradient_checkpointing_enable({"use_reentrant": False})
        self.model = base if self.lora is None else put_on(base, self.lora, self.adapter)
        # Weights are read in evaluation mode, where neither checkpointing nor dropout acts.
        decoder_of(base.eval()).train()

    @property
    def thinker(self) -> Any:  # noqa: ANN401 (a transformers class without useful types)
        """The Hugging Face model, adapter layers inside."""
        return self.model if self.lora is None else self.model.get_base_model()

    @property
    def language_model(self) -> nn.Module:
        """The decoder stack, without the output head."""
        return decoder_of(self.thinker)

    @property
    def lm_head(self) -> nn.Linear:
        """Output head: hidden states to logits."""
        head: nn.Linear = self.thinker.lm_head
        return head

    @property
    def embed_tokens(self) -> nn.Embedding:
        """Token embeddings."""
        embedding: nn.Embedding = self.thinker.get_input_embeddings()
        return embedding

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.embed_tokens.weight.device if self._sharded is None else self._sharded.sharding.device

    @property
    def end_of_turn_ids(self) -> tuple[int, ...]:
        """Tokens that end a completion; the sampled one is part of it and is trained."""
        ids = self.thinker.generation_config.eos_token_id
        found = ids if isinstance(ids, list) else [ids]
        return tuple(dict.fromkeys([*[i for i in found if i is not None], self.builder.tokenizer.eos_token_id]))

    @property
    def pad_id(self) -> int:
        """Token that fills rows; it is never attended to."""
        return int(self.builder.tokenizer.pad_token_id)

    def decode(self, ids: Int[Tensor, "tokens"]) -> str:
        """Text of a completion without special tokens."""
        return str(self.builder.tokenizer.decode(ids, skip_special_tokens=True))

    def prepare(self, clip: Clip) -> Prompt:
        """Model inputs of a clip's question, on the CPU: those made ahead, or now; see `PromptBuilder.from_clip`.

        The clip gives them up: it may be kept for long, and pixels and sound are large.
        """
        found = clip.ahead.pop(PROMPT, None)
        return found if isinstance(found, Prompt) else self.builder.from_clip(clip)

    def encode(self, prompt: Prompt) -> EncodedPrompt:
        """Run the frozen towers over a prompt, once, and place their features among the token embeddings."""
        with torch.no_grad():
            return self.encode_all([prompt])[0]

    def encode_all(self, prompts: Sequence[Prompt]) -> list[EncodedPrompt]:
        """Encode several prompts with one call per tower; gradients flow into whatever is not frozen."""
        prompts = [prompt.to(self.device) for prompt in prompts]
        seen = self._run_tower(prompts, "pixel_values_videos", "video_grid_thw")
        heard = self._run_tower(prompts, "input_features", "feature_attention_mask")
        return [self._assemble(prompt, seen, heard) for prompt in prompts]

    def _run_tower(self, prompts: Sequence[Prompt], values: str, layout: str) -> Iterator[Tensor]:
        """Features of all prompts' frames, or of all their sounds, in order."""
        with_media = [prompt.features for prompt in prompts if values in prompt.features]
        if not with_media:
            return iter(())
        media = torch.cat([features[values] for features in with_media]).to(self.embed_tokens.weight.dtype)
        shape = torch.cat([features[layout] for features in with_media])
        if values == "pixel_values_videos":
            return iter(multimodal_part(self.thinker).get_video_features(media, shape).pooler_output)
        features = multimodal_part(self.thinker).get_audio_features(media, shape).last_hidden_state
        lengths = [self._audio_tokens(int(mask.sum())) for mask in shape]
        return iter(features.split(lengths))

    @staticmethod
    def _audio_tokens(frames: int) -> int:
        """Sound tokens of a number of feature frames: a strided convolution, then pairwise pooling."""
        return ((frames - 1) // 2 + 1 - 2) // 2 + 1

    def _assemble(self, prompt: Prompt, seen: Iterator[Tensor], heard: Iterator[Tensor]) -> EncodedPrompt:
        model, features, ids = multimodal_part(self.thinker), prompt.features, prompt.input_ids
        embeddings = self.embed_tokens(ids)
        if "pixel_values_videos" in features:
            embeddings = _place(embeddings, ids == model.config.video_token_id, next(seen))
        if "input_features" in features:
            embeddings = _place(embeddings, ids == model.config.audio_token_id, next(heard))
        positions, _ = model.get_rope_index(
            ids,
            None,
            features.get("video_grid_thw"),
            torch.ones_like(ids),
            prompt.has_audio,
            features["feature_attention_mask"].sum(-1) if prompt.has_audio else None,
            features.get("video_second_per_grid"),
        )
        return EncodedPrompt(prompt.clip_id, ids.cpu(), embeddings, positions.long(), int(positions.max()) + 1)

    def gathered(self) -> AbstractContextManager[None]:
        """A rollout phase: weights that are spread over devices are whole inside the block; see `ShardedModel`."""
        return contextlib.nullcontext() if self._sharded is None else self._sharded.gathered()

    def gathered_ends(self) -> AbstractContextManager[None]:
        """An update: as far as weights are spread, those around the layers are whole inside the block."""
        return contextlib.nullcontext() if self._sharded is None else self._sharded.gathered_ends()

    @property
    def visited(self) -> ShardedModel | None:
        """What decoder layers have to be entered and left through in rollouts; None where they are whole all along."""
        return self._sharded if self._sharded is not None and self._sharded.is_visited else None

    @contextlib.contextmanager
    def reference(self) -> Iterator[None]:
        """The base model inside the block: same weights, adapter off."""
        with contextlib.nullcontext() if self.lora is None else self.model.disable_adapter():
            yield

    @torch.no_grad()
    def generate_text(
        self,
        images: Images,
        questions: Sequence[ImageQuestion],
        *,
        max_new_tokens: int = 256,
        shared: bool = True,
    ) -> list[str]:
        """Answer questions about images greedily, all together; each image goes through the tower once.

        Args:
            images: RGB frames, all of one size.
            questions: (image, user text after it), each of which is one conversation.
            max_new_tokens: Longest answer in tokens.
            shared: The language model reads an image once as well, for all questions about it; False, and any attention
                but sdpa, reads it with each. The answers are the same.

        Returns:
            One text per question, without special tokens; no questions give an empty list.
        """
        if not questions:
            return []
        answers = shared_answers if shared and takes_masks(self.language_model) else plain_answers
        found = answers(self, images, questions, max_new_tokens=max_new_tokens)
        return [self.decode(torch.tensor(ids)) for ids in found]


def _place(
    embeddings: Float[Tensor, "1 prompt hidden"], where: Tensor, features: Float[Tensor, "media hidden"]
) -> Float[Tensor, "1 prompt hidden"]:
    """Put tower features where their placeholder tokens stand.

    Raises:
        ValueError: There are more or fewer features than placeholders, as happens when a prompt was cut.
    """
    if int(where.sum()) != len(features):
        raise ValueError(f"expected {int(where.sum())} media features, one per placeholder, found {len(features)}")
    return embeddings.masked_scatter(where.unsqueeze(-1), features.to(embeddings.dtype))
