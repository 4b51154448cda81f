import pytest
import torch

from models.rows import TurnIds, read_turns


def by_turn(answers) -> dict[tuple[int, int], torch.Tensor]:
    """Answer logits of every turn."""
    found = {}
    for part in answers:
        found |= dict(zip(part.turns, part.logits.split(part.lengths), strict=True))
    return found


def ask(builder, question: str, answer: str) -> TurnIds:
    return TurnIds(builder.turn_ids(question), builder.answer_ids(answer))


LONG = "find the red circle find the red circle the red"


@pytest.mark.parametrize("asked", [
    [[("find the red circle", "the red"), ("red", "circle find the"), ("the", "red")], [("circle", "find")]],
    [[("the", "red"), (LONG, LONG), ("red", "circle")], [(LONG, "find"), ("the", LONG)]],
    [[], [("circle", "find")]],
])  # fmt: skip
def test_turns_behind_shared_media_equal_turns_asked_alone(make_reasoner, make_clip, asked):
    """Two clips of different length, turns of different length: every answer gets the logits of its own prompt."""
    reasoner = make_reasoner(gain=3.0)
    builder = reasoner.builder
    clips = [make_clip("a"), make_clip("b", has_audio=False, seconds=6)]
    turns = [[ask(builder, *words) for words in row] for row in asked]
    with torch.no_grad():
        _, answers = read_turns(reasoner, reasoner.encode_all([builder.media_only(clip) for clip in clips]), turns)
        found = by_turn(answers)
        assert set(found) == {(clip, number) for clip, row in enumerate(asked) for number in range(len(row))}
        for (clip, number), logits in found.items():
            question, answer = asked[clip][number]
            encoded = reasoner.encode(builder.from_question(clips[clip], question))
            ids = torch.tensor([builder.answer_ids(answer)])
            count = ids.shape[1]
            whole = torch.cat([encoded.embeddings, reasoner.embed_tokens(ids)], dim=1)
            new = (encoded.next_position + torch.arange(count)).expand(3, 1, -1)
            positions = torch.cat([encoded.positions, new], dim=2)
            hidden = reasoner.language_model(inputs_embeds=whole, position_ids=positions).last_hidden_state
            torch.testing.assert_close(logits, reasoner.lm_head(hidden)[0, -count - 1 : -1], atol=2e-5, rtol=0)


def test_gradients_of_shared_media_equal_those_of_turns_asked_alone(make_reasoner, make_clip):
    reasoner = make_reasoner(gain=3.0)
    builder = reasoner.builder
    media = reasoner.encode_all([builder.media_only(make_clip())])
    turns = [ask(builder, "find the red circle", "the red"), ask(builder, "red", LONG), ask(builder, "the", "red")]

    def gradients(rows) -> list[torch.Tensor]:
        reasoner.zero_grad()
        for row in rows:
            for part in read_turns(reasoner, media, [row])[1]:
                torch.nn.functional.cross_entropy(part.logits, part.labels, reduction="sum").backward(retain_graph=True)
        return [p.grad.clone() for p in reasoner.parameters() if p.requires_grad]

    for shared, alone in zip(gradients([turns]), gradients([[turn] for turn in turns]), strict=True):
        torch.testing.assert_close(shared, alone, atol=1e-5, rtol=1e-4)


def test_labels_are_the_answers_and_nothing_else(make_reasoner, make_clip):
    reasoner = make_reasoner()
    builder = reasoner.builder
    turns = [ask(builder, "red", answer) for answer in ("the circle", "find")]
    with torch.no_grad():
        media = reasoner.encode_all([builder.media_only(make_clip())])
        _, answers = read_turns(reasoner, media, [turns])
    for part in answers:
        for (_, number), labels in zip(part.turns, part.labels.split(part.lengths), strict=True):
            assert labels.tolist() == turns[number].answer


def test_media_states_are_those_of_the_media_alone(make_reasoner, make_clip):
    reasoner = make_reasoner()
    builder = reasoner.builder
    clips = [make_clip("a"), make_clip("b", has_audio=False), make_clip("c")]
    with torch.no_grad():
        media = reasoner.encode_all([builder.media_only(clip) for clip in clips])
        states, _ = read_turns(reasoner, media, [[ask(builder, "red", "find")]] * 3)
        assert sorted(group.clips for group in states) == [[0, 2], [1]]
        for group in states:
            for row, clip in enumerate(group.clips):
                alone = reasoner.language_model(
                    inputs_embeds=media[clip].embeddings, position_ids=media[clip].positions, output_hidden_states=True
                ).hidden_states
                for shared, expected in zip(group.layers, alone, strict=True):
                    torch.testing.assert_close(shared[row : row + 1], expected, atol=2e-5, rtol=0)
