import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from datamodules.errors import ConfigError
from models.loading import find_weights
from models.processing import PromptBuilder
from models.prompts import TEMPLATES, choose_template
from models.reasoner import LoRA, Reasoner
from models.thinker import multimodal_part


def logits_of_own_forward(reasoner, prompt):
    """The released forward pass on the processor's own output, towers and positions included."""
    ids = prompt.input_ids
    return reasoner.thinker(
        input_ids=ids, attention_mask=torch.ones_like(ids), use_audio_in_video=prompt.has_audio, **prompt.features
    ).logits


def logits_of_encoded(reasoner, encoded):
    hidden = reasoner.language_model(inputs_embeds=encoded.embeddings, position_ids=encoded.positions)
    return reasoner.lm_head(hidden.last_hidden_state)


@pytest.mark.parametrize("has_audio", [True, False])
def test_encoded_prompt_gives_the_logits_of_the_released_forward(make_reasoner, make_clip, has_audio):
    reasoner = make_reasoner()
    prompt = reasoner.prepare(make_clip(has_audio=has_audio))
    with torch.no_grad():
        expected = logits_of_own_forward(reasoner, prompt)
        found = logits_of_encoded(reasoner, reasoner.encode(prompt))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_encoding_together_equals_encoding_alone(make_reasoner, make_clip):
    reasoner = make_reasoner()
    clips = [make_clip("a"), make_clip("b", has_audio=False), make_clip("c", seconds=6)]
    prompts = [reasoner.prepare(clip) for clip in clips]
    with torch.no_grad():
        together = reasoner.encode_all(prompts)
    for prompt, encoded in zip(prompts, together, strict=True):
        alone = reasoner.encode(prompt)
        torch.testing.assert_close(encoded.embeddings, alone.embeddings, atol=1e-5, rtol=0)
        assert torch.equal(encoded.positions, alone.positions)
        assert encoded.next_position == alone.next_position


def test_sound_changes_the_prompt_and_silence_shortens_it(make_reasoner, make_clip):
    """Four seconds of sound are 20 tokens at 5 per second, between their two marks."""
    builder = make_reasoner().builder
    loud, silent = builder.from_clip(make_clip()), builder.from_clip(make_clip(has_audio=False))
    assert loud.input_ids.shape[1] - silent.input_ids.shape[1] == 20 + 2
    assert loud.has_audio
    assert not silent.has_audio


def test_frames_are_not_enlarged(make_reasoner, make_clip):
    """Four 56 px frames are 2 temporal x 4 x 4 patches; the processor's own minimum would make them 336 px."""
    prompt = make_reasoner().builder.from_clip(make_clip())
    assert prompt.features["video_grid_thw"].tolist() == [[2, 4, 4]]


def test_next_position_follows_the_last_prompt_token(make_reasoner, make_clip):
    reasoner = make_reasoner()
    encoded = reasoner.encode(reasoner.prepare(make_clip()))
    assert encoded.positions.shape == (3, 1, encoded.embeddings.shape[1])
    assert encoded.positions[:, 0, -1].tolist() == [encoded.next_position - 1] * 3


def test_only_the_adapter_is_trained_and_only_in_the_language_model(make_reasoner):
    trained = [name for name, p in make_reasoner().named_parameters() if p.requires_grad]
    assert trained
    assert all("lora_" in name and ".layers." in name and "tower" not in name for name in trained)


def test_reference_is_the_base_without_its_adapter(make_reasoner, make_clip):
    adapted, plain = make_reasoner(adapter_scale=0.5), make_reasoner(adapter_scale=0.0)
    prompt = adapted.prepare(make_clip())
    with torch.no_grad():
        base = logits_of_encoded(plain, plain.encode(prompt))
        changed = logits_of_encoded(adapted, adapted.encode(prompt))
        with adapted.reference():
            restored = logits_of_encoded(adapted, adapted.encode(prompt))
    torch.testing.assert_close(restored, base)
    assert (changed - base).abs().max() > 1e-2


def test_saved_folder_loads_to_the_same_model(make_reasoner, make_clip, tmp_path):
    original = make_reasoner(adapter_scale=0.0)
    prompt = original.prepare(make_clip())
    with torch.no_grad():
        expected = logits_of_encoded(original, original.encode(prompt))
    original.model.unload().save_pretrained(tmp_path)
    original.builder.processor.save_pretrained(tmp_path)
    for loaded in (Reasoner(str(tmp_path), template="short", lora=None), Reasoner(str(tmp_path), template="short")):
        loaded.load()
        with torch.no_grad():
            found = logits_of_encoded(loaded, loaded.encode(loaded.prepare(make_clip())))
        torch.testing.assert_close(found, expected)
        assert loaded.end_of_turn_ids == original.end_of_turn_ids


def test_adapter_folder_must_exist(make_reasoner, tmp_path):
    base = make_reasoner()
    missing = Reasoner(template="short", adapter=str(tmp_path))
    with pytest.raises(ConfigError, match=r"model\.reasoner\.adapter: expected a folder with adapter_config\.json"):
        missing.attach(base.model.unload(), base.builder.processor)


def test_exported_adapter_continues_where_it_was(make_reasoner, make_clip, tmp_path):
    original = make_reasoner(adapter_scale=0.3)
    original.model.save_pretrained(tmp_path / "adapter")
    base = make_reasoner(adapter_scale=0.0)
    continued = Reasoner(template="short", adapter=str(tmp_path / "adapter"))
    continued.attach(base.model.unload(), base.builder.processor)
    prompt = original.prepare(make_clip())
    with torch.no_grad():
        expected = logits_of_encoded(original, original.encode(prompt))
        found = logits_of_encoded(continued, continued.encode(prompt))
    torch.testing.assert_close(found, expected)
    assert any(p.requires_grad for p in continued.parameters())


def test_generate_text_answers_each_question_as_if_it_were_alone(make_reasoner):
    """Rows of different lengths share a batch, and rows of one image its pass through the tower."""
    reasoner = make_reasoner(gain=4.0)
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (56, 84, 3), dtype=np.uint8) for _ in range(3)]
    questions = [(0, "where"), (2, "where is it, and what does it do"), (0, "what"), (1, "where"), (0, "where")]
    towers = []
    multimodal_part(reasoner.thinker).visual.register_forward_hook(lambda *call: towers.append(len(call[1][0])))
    together = reasoner.generate_text(images, questions, max_new_tokens=4)
    alone = [reasoner.generate_text([images[index]], [(0, text)], max_new_tokens=4)[0] for index, text in questions]
    assert together == alone
    assert together[0] == together[4]
    assert len(set(together)) > 2
    assert towers[0] == 3 * towers[1]
    assert reasoner.generate_text(images, []) == []


def test_a_prompt_made_ahead_is_taken_as_it_is_and_not_kept(make_reasoner, make_clip, monkeypatch):
    """Clips are kept with the rollouts of a step, and their pixels would live as long."""
    reasoner, clip = make_reasoner(), make_clip()
    now = reasoner.prepare(clip)
    reasoner.builder.read_ahead(clip)
    monkeypatch.setattr(reasoner.builder, "from_clip", None)
    ahead = reasoner.prepare(clip)
    assert torch.equal(ahead.input_ids, now.input_ids)
    assert all(torch.equal(ahead.features[name], now.features[name]) for name in now.features)
    assert not clip.ahead


def test_another_question_about_a_clip_does_not_find_the_prompt_of_the_first(make_reasoner, make_clip):
    reasoner, clip = make_reasoner(), make_clip()
    reasoner.builder.read_ahead(clip)
    other = replace(clip, expression="the sound that comes from the left")
    assert reasoner.prepare(other).input_ids.shape != reasoner.prepare(clip).input_ids.shape


def test_missing_weights_are_named_with_the_flag(tmp_path):
    with pytest.raises(ConfigError, match=r"model\.reasoner\.path: expected a folder or a hub id.*--model\.reasoner"):
        Reasoner(str(tmp_path / "nowhere")).load()


def test_folder_without_processor_lists_what_it_lacks(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({}))
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ConfigError, match=r"lacks tokenizer\.json or vocab\.json, preprocessor_config\.json or"):
        Reasoner(str(tmp_path)).load()


def test_hub_ids_pass_through_and_folders_become_absolute(tmp_path, monkeypatch):
    assert find_weights("Qwen/Qwen2.5-Omni-7B", flag="f", required=()) == "Qwen/Qwen2.5-Omni-7B"
    (tmp_path / "some" / "weights").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert find_weights("some/weights", flag="f", required=()) == str(tmp_path / "some" / "weights")
    with pytest.raises(ConfigError, match="neither"):
        find_weights("weights/tiny/none", flag="f", required=())


def test_template_auto_follows_the_task(make_clip):
    clip = make_clip()
    assert choose_template("auto", clip).name == "refavs"
    assert choose_template("auto", replace(clip, task="revos")).name == "revos"
    assert choose_template("auto", replace(clip, task="video")).name == "refavs"
    assert choose_template("auto", replace(make_clip(has_audio=False), task="video")).name == "revos"
    with pytest.raises(ConfigError, match=r"expected auto or one of refavs, revos, short, found 'odd'"):
        choose_template("odd", clip)


def test_templates_ask_for_the_answer_form_and_hold_no_example_times(make_clip):
    for template in TEMPLATES.values():
        text = template.render(make_clip(), max_keyframes=3)
        assert "the red circle" in text
        assert "{" not in text.replace('{"absent": true}', "")
        assert not any(f"0{digit}:" in text for digit in range(10))
    for name in ("refavs", "revos"):
        text = TEMPLATES[name].render(make_clip(), max_keyframes=3)
        assert all(word in text for word in ("start_time", "end_time", "description", '{"absent": true}', "up to 3"))


def test_lora_none_trains_nothing_by_itself(make_reasoner):
    source = make_reasoner()
    reasoner = Reasoner(template="short", lora=None)
    reasoner.attach(source.model.unload(), source.builder.processor)
    assert not any(p.requires_grad for p in reasoner.parameters())
    with reasoner.reference():
        pass


def test_adapter_size_follows_its_settings(make_reasoner):
    """Every adapted linear layer (7 per decoder layer, 2 layers) has one pair of matrices."""
    pairs = [name for name, _ in make_reasoner().named_parameters() if "lora_A" in name]
    assert len(pairs) == 2 * 7
    assert LoRA().r == 16


def test_builder_cuts_the_prompt_behind_the_media(make_reasoner, make_clip):
    reasoner = make_reasoner()
    builder: PromptBuilder = reasoner.builder
    clip = make_clip()
    whole = builder.from_question(clip, "who sings")
    media = builder.media_only(clip)
    assert media.input_ids.tolist()[0] + builder.turn_ids("who sings") == whole.input_ids.tolist()[0]
