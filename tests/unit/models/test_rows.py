import torch

from models.rows import TurnIds, answer_logits, pack_rows


def test_packed_turns_equal_turns_asked_alone(make_reasoner, make_clip):
    """Two clips of different length, turns of different length: every answer gets the logits of its own prompt."""
    reasoner = make_reasoner(gain=3.0)
    builder = reasoner.builder
    clips = [make_clip("a"), make_clip("b", has_audio=False, seconds=6)]
    asked = [[("find the red circle", "the red"), ("red", "circle find the"), ("the", "red")], [("circle", "find")]]
    turns = [[TurnIds(builder.turn_ids(q), builder.answer_ids(a)) for q, a in row] for row in asked]
    with torch.no_grad():
        media = reasoner.encode_all([builder.media_only(clip) for clip in clips])
        rows = pack_rows(reasoner, media, turns)
        packed = answer_logits(reasoner, rows)
        expected = []
        for clip, row in zip(clips, asked, strict=True):
            for question, answer in row:
                prompt = builder.from_question(clip, question)
                ids = torch.tensor([builder.answer_ids(answer)])
                encoded = reasoner.encode(prompt)
                count = ids.shape[1]
                whole = torch.cat([encoded.embeddings, reasoner.embed_tokens(ids)], dim=1)
                new = (encoded.next_position + torch.arange(count)).expand(3, 1, -1)
                positions = torch.cat([encoded.positions, new], dim=2)
                hidden = reasoner.language_model(inputs_embeds=whole, position_ids=positions).last_hidden_state
                expected.append(reasoner.lm_head(hidden)[0, -count - 1 : -1])
    torch.testing.assert_close(packed, torch.cat(expected), atol=2e-5, rtol=0)


def test_labels_are_the_answers_and_nothing_else(make_reasoner, make_clip):
    reasoner = make_reasoner()
    builder = reasoner.builder
    turns = [TurnIds(builder.turn_ids("red"), builder.answer_ids(answer)) for answer in ("the circle", "find")]
    with torch.no_grad():
        media = reasoner.encode_all([builder.media_only(make_clip())])
        rows = pack_rows(reasoner, media, [turns])
    assert rows.labels[rows.labels != -100].tolist() == [token for turn in turns for token in turn.answer]
    assert rows.turns[rows.turns >= 0].tolist() == [0] * len(turns[0].answer) + [1] * len(turns[1].answer)
    assert torch.equal(rows.turns >= 0, rows.labels != -100)


def test_a_turn_cannot_see_another_turn(make_reasoner, make_clip):
    reasoner = make_reasoner(gain=3.0)
    builder = reasoner.builder
    media_prompt = builder.media_only(make_clip())

    def last_answer(first_answer):
        asked = [("red", first_answer), ("circle", "the red")]
        turns = [TurnIds(builder.turn_ids(q), builder.answer_ids(a)) for q, a in asked]
        rows = pack_rows(reasoner, reasoner.encode_all([media_prompt]), [turns])
        return answer_logits(reasoner, rows)[-len(turns[1].answer) :]

    with torch.no_grad():
        torch.testing.assert_close(last_answer("find the circle"), last_answer("red"), atol=1e-5, rtol=0)
