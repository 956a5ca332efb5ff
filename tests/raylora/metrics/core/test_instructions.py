from __future__ import annotations

import json
from pathlib import Path

import pytest

from raylora.metrics.core.instructions import CHECKS, follows, loose_versions, sentences

ENGLISH = "This is a plain English sentence about the weather in the mountains during a long winter."
GERMAN = "Das ist ein ganz gewöhnlicher deutscher Satz über das Wetter in den Bergen im langen Winter."

# Of each kind: arguments, answers that follow, answers that do not.
CASES = {
    "change_case:capital_word_frequency": (
        {"capital_frequency": 2, "capital_relation": "at least"},
        ["NASA and ESA agree", "I AM"],
        ["NASA agrees", "Nasa Esa"],
    ),
    "change_case:english_capital": ({}, [ENGLISH.upper()], [ENGLISH, GERMAN.upper()]),
    "change_case:english_lowercase": ({}, [ENGLISH.lower()], [ENGLISH, GERMAN.lower()]),
    "combination:repeat_prompt": (
        {"prompt_to_repeat": "Write a poem."},
        ["Write a poem.\n\nRoses are red.", "write a POEM. Yes"],
        ["Roses are red. Write a poem.", "Write a po"],
    ),
    "combination:two_responses": (
        {},
        ["one\n******\ntwo", "******one******two******"],
        ["one", "one ****** one", "a******b******c", "one******"],
    ),
    "detectable_content:number_placeholders": (
        {"num_placeholders": 2},
        ["[name] at [address]", "[a][b][c]"],
        ["[name]", "(name) (address)"],
    ),
    "detectable_content:postscript": (
        {"postscript_marker": "P.P.S"},
        ["Bye.\nP.P.S I forgot.", "Bye.\n\np. p. s. more"],
        ["Bye.\nP.S. I forgot.", "Bye."],
    ),
    "detectable_format:constrained_response": (
        {},
        ["My answer is yes.", "Well. My answer is maybe."],
        ["Yes.", "My answer is perhaps."],
    ),
    "detectable_format:json_format": ({}, ['{"a": [1]}', '```json\n{"a": 1}\n```'], ["{a: 1}", "Here: {}", ""]),
    "detectable_format:multiple_sections": (
        {"section_spliter": "Section", "num_sections": 2},
        ["Section 1\na\nSection 2\nb"],
        ["Section 1\na", "Part 1 Part 2"],
    ),
    "detectable_format:number_bullet_lists": (
        {"num_bullets": 2},
        ["Here:\n* one\n* two", "- one\n- two\nend"],
        ["* one", "* one\n* two\n* three", "**bold** and **more**"],
    ),
    "detectable_format:number_highlighted_sections": (
        {"num_highlights": 2},
        ["*one* and *two*", "**one** and *two*"],
        ["*one*", "one two", "** ** and * *"],
    ),
    "detectable_format:title": ({}, ["<<A day>>\nIt was"], ["<A day>", "<<>>", "A day"]),
    "keywords:existence": ({"keywords": ["tall", "Sea"]}, ["A tall ship at sea"], ["A tall ship", "sea"]),
    "keywords:forbidden_words": (
        {"forbidden_words": ["rock", "sea"]},
        ["rocket in the seaside"],
        ["A Rock", "by the sea."],
    ),
    "keywords:frequency": (
        {"keyword": "sea", "frequency": 2, "relation": "at least"},
        ["Sea, sea and sea", "sea sea"],
        ["sea", "land"],
    ),
    "keywords:letter_frequency": (
        {"letter": "Q", "let_frequency": 2, "let_relation": "less than"},
        ["quiet", "none"],
        ["quite quiet", "QqQ"],
    ),
    "language:response_language": ({"language": "de"}, [GERMAN], [ENGLISH]),
    "length_constraints:nth_paragraph_first_word": (
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Then"},
        ["First this.\n\nThen that.", 'A\n\n\n\n"then" b'],
        ["Then this.\n\nFirst that.", "First.\n\nThen.\n\nLast.", "Then"],
    ),
    "length_constraints:number_paragraphs": (
        {"num_paragraphs": 2},
        ["one\n***\ntwo", "*** one *** two ***"],
        ["one\n\ntwo", "one *** *** two", "a *** b *** c"],
    ),
    "length_constraints:number_sentences": (
        {"num_sentences": 3, "relation": "less than"},
        ["One. Two.", "Dr. Smith paid 3.50 today! Really?"],
        ["One. Two! Three?", "A b. C d. E f. G h."],
    ),
    "length_constraints:number_words": (
        {"num_words": 3, "relation": "at least"},
        ["one two three", "a, b, c and d"],
        ["one two", "..."],
    ),
    "punctuation:no_comma": ({}, ["No such sign here."], ["Well, no."]),
    "startend:end_checker": (
        {"end_phrase": "Is that all?"},
        ["Yes. Is that all?", '"So. is THAT all?" '],
        ["Is that all? Yes.", "Is that all"],
    ),
    "startend:quotation": ({}, ['"All of it."', ' "a" '], ['"Half of it.', "All of it.", '"']),
}


def test_there_is_a_case_of_each_of_the_25_kinds():
    assert CASES.keys() == CHECKS.keys() and len(CHECKS) == 25


@pytest.mark.parametrize("kind", CASES)
def test_answers_that_follow_are_seen_to(kind):
    arguments, following, _ = CASES[kind]
    assert [text for text in following if not follows(kind, text, arguments)] == []


@pytest.mark.parametrize("kind", CASES)
def test_answers_that_break_it_are_seen_to(kind):
    arguments, _, breaking = CASES[kind]
    assert [text for text in breaking if follows(kind, text, arguments)] == []


@pytest.mark.parametrize("kind", CASES)
def test_an_empty_answer_follows_nothing(kind):
    assert not follows(kind, " \n", CASES[kind][0])


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("One. Two! Three?", 3),
        ("Mr. Smith met Dr. Jones at 3.50 p.m. today.", 1),
        ('He said "Stop." Then he left', 2),
        ("What?! No...", 2),
        ("A line\nand another", 1),
        ("...", 0),
    ],
)
def test_sentences_are_counted(text, count):
    assert sentences(text) == count


def test_loose_versions_lack_the_first_or_last_line_or_the_asterisks():
    assert loose_versions("a\n*b*\nc") == ["a\n*b*\nc", "*b*\nc", "a\n*b*", "*b*", "a\nb\nc", "b\nc", "a\nb", "b"]


IFEVAL = next(
    (p / "shared/data/ifeval/test.parquet" for p in Path(__file__).parents if (p / "shared/data").is_dir()), None
)


@pytest.mark.skipif(IFEVAL is None, reason="no shared data beside the checkout")
def test_every_published_instruction_can_be_checked():
    import pyarrow.parquet as pq

    kinds = set()
    for row in pq.read_table(IFEVAL).to_pylist():
        for kind, arguments in zip(row["instruction_id_list"], json.loads(row["kwargs"]), strict=True):
            assert isinstance(follows(kind, ENGLISH, arguments), bool)
            kinds.add(kind)
    assert kinds == set(CHECKS)
