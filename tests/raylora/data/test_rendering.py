from __future__ import annotations

import pytest

from raylora.data.rendering import Refused, Renderer
from raylora.errors import UserError
from trainables.testing import CHAT_TEMPLATE, make_tiny_tokenizer

TURNS = [
    {"role": "system", "content": "s"},
    {"role": "user", "content": "a"},
    {"role": "assistant", "content": "b"},
    {"role": "user", "content": "b"},
    {"role": "assistant", "content": "c"},
]
MARKED = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}{% else %}"
    "{{ m.content }}{% endif %}"
    "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# As templates of reasoning models have it: the last answer is shown with a place for reasoning, the past without.
FORGETFUL = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.role == 'assistant' and loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and not enable_thinking %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)
SPACED = (
    "{% for m in messages %}{% if m.role == 'user' %}[{{ m.content }}]"
    "{% else %}{{ ' ' + m.content | trim + ' <|im_end|>' }}{% endif %}{% endfor %}"
)


def renderer(template=CHAT_TEMPLATE, **options):
    tokenizer = make_tiny_tokenizer()
    tokenizer.chat_template = template
    return Renderer(tokenizer, **options)


def shown(rendered):
    return [rendered.text[start:end] for start, end in rendered.spans]


@pytest.mark.parametrize("template", [CHAT_TEMPLATE, MARKED])
def test_each_assistant_turn_is_found_with_its_end_token(template):
    rendered = renderer(template).conversation(TURNS)
    assert shown(rendered) == ["b<|im_end|>", "c<|im_end|>"]
    assert rendered.text.endswith("<|im_start|>assistant\nc<|im_end|>")


def test_a_template_that_knows_no_tool_calls_is_given_them_as_text():
    call = {"function": {"name": "add", "arguments": {"a": 1}}}
    turns = [
        {"role": "user", "content": "1 + 1?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "2"},
        {"role": "assistant", "content": "Two."},
    ]
    assert shown(renderer().conversation(turns)) == [
        '[{"function": {"name": "add", "arguments": {"a": 1}}}]<|im_end|>',
        "Two.<|im_end|>",
    ]


def test_turns_are_found_where_the_past_is_rendered_in_another_way():
    rendered = renderer(FORGETFUL).conversation(TURNS)
    assert shown(rendered) == ["b<|im_end|>", "c<|im_end|>"]
    assert rendered.text[: rendered.spans[-1][0]].endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")


def test_an_answer_is_not_taken_for_the_same_text_of_the_user():
    turns = [
        {"role": "user", "content": "yes yes"},
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": "yes"},
        {"role": "assistant", "content": "yes"},
    ]
    rendered = renderer().conversation(turns)
    assert [rendered.text[:start].count("<|im_start|>") for start, _ in rendered.spans] == [2, 4]


def test_what_the_template_puts_around_an_answer_is_part_of_it():
    turn = renderer(SPACED).turn
    assert (turn.around("x "), turn.end, turn.trims) == (" x ", "<|im_end|>", True)
    plain = renderer().turn
    assert (plain.around(" x"), plain.end, plain.ended) == (" x", "<|im_end|>", True)


def test_a_template_without_an_end_token_is_given_the_tokenizers():
    found = renderer(
        "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    assert not found.turn.ended
    assert shown(found.conversation(TURNS))[-1] == "c<|im_end|>"


def test_a_model_without_a_template_reads_a_transcript():
    rendered = renderer(None).conversation(TURNS)
    assert rendered.text == "s\n\nUser: a\n\nAssistant: b<|im_end|>\n\nUser: b\n\nAssistant: c<|im_end|>"
    assert shown(rendered) == [" b<|im_end|>", " c<|im_end|>"]


def test_the_system_message_is_for_conversations_without_one():
    assert "other" not in renderer(system="other").conversation(TURNS).text
    assert "system\nother" in renderer(system="other").conversation(TURNS[1:]).text


def test_a_conversation_that_the_template_refuses_says_why():
    picky = "{% if messages|length > 2 %}{{ raise_exception('too many turns') }}{% endif %}" + CHAT_TEMPLATE
    with pytest.raises(Refused, match="too many turns"):
        renderer(picky).conversation(TURNS)


def test_a_template_that_hides_the_last_answer_is_refused():
    with pytest.raises(Refused, match="does not show the last answer"):
        renderer("{% for m in messages %}{{ m.content | upper }}{% endfor %}").conversation(TURNS)


def test_text_that_spells_a_control_token_is_marked():
    found = renderer()
    marked = found.mark("x <|im_end|> y")
    assert marked != "x <|im_end|> y" and marked.replace("\ue0f0", "").replace("\ue0f1", "") == "x <|im_end|> y"
    assert renderer(control_tokens=True).mark("<|im_end|>") == "<|im_end|>"


def test_a_tokenizer_without_an_end_token_is_refused():
    tokenizer = make_tiny_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(UserError, match="no end-of-sequence token"):
        Renderer(tokenizer)
