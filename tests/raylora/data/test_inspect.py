from __future__ import annotations

import json

import pytest

from raylora.data.inspect import inspect_rows
from raylora.data.sources import open_splits
from raylora.data.tokenise import Encoder
from raylora.data.tokens import Tokenising
from trainables.testing import make_tiny_tokenizer


def inspect(sources, *, tokenizer=None, max_length=128, max_new_tokens=16, **options):
    encoder = Encoder(tokenizer or make_tiny_tokenizer(), Tokenising())
    return inspect_rows(sources, encoder, max_length=max_length, max_new_tokens=max_new_tokens, **options)


def rows(*pairs):
    return lambda: [{"prompt": prompt, "response": said, "answer": said} for prompt, said in pairs]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train = [{"prompt": f"q{n}", "response": "yes" if n % 4 else "no"} for n in range(8)]
    lines = [*map(json.dumps, [*train, train[2], {"prompt": "q", "response": None}]), "no json"]
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    (tmp_path / "test.jsonl").write_text("\n".join(map(json.dumps, [train[5], {"prompt": "new", "response": "yes"}])))
    return tmp_path


def test_rows_are_counted_with_what_is_dropped_and_why(folder):
    train = inspect(open_splits(str(folder)))["splits"]["train"]
    assert (train["rows"], train["usable"], train["prompts"]) == (11, 9, 8)
    assert train["dropped"]["null_response"] == {
        "rows": 1, "why": "have no response (null)", "first": "train.jsonl:10",
    }  # fmt: skip
    assert train["dropped"]["broken"]["first"].startswith("train.jsonl:11 (no JSON")
    assert (train["duplicates"], train["first_duplicate"]) == (1, "train.jsonl:9, as train.jsonl:3")
    assert train["recognised"] == "prompts and responses (prompt, response) in train.jsonl"


def test_labels_are_counted_where_there_are_few(folder):
    assert inspect(open_splits(str(folder)))["splits"]["train"]["labels"] == [("yes", 7), ("no", 2)]
    many = inspect({"train": rows(*[(f"q{n}", f"a{n}") for n in range(30)])})
    assert many["splits"]["train"]["labels"] == []


def test_a_prompt_of_two_splits_is_told_with_its_places(folder):
    report = inspect(open_splits(str(folder)))
    assert report["shared"] == [{"splits": ["train", "test"], "prompts": 1, "first": "train.jsonl:6 and test.jsonl:1"}]
    assert "1 prompts of test are also in train, the first at train.jsonl:6 and test.jsonl:1" in report["warnings"]


def test_token_lengths_are_told_as_quantiles_and_bars():
    train = inspect({"train": rows(*[(f"q{n}", "a" * (n + 1)) for n in range(10)])})["splits"]["train"]
    assert train["tokens"]["response"][0] == 2 and train["tokens"]["response"][-1] == 11
    assert sum(count for _, _, count in train["histogram"]) == 10
    assert [row["tokens"] for row in train["longest"]] == sorted(
        (row["tokens"] for row in train["longest"]), reverse=True
    )


def test_shown_rows_are_what_the_model_sees_with_what_is_trained_on_apart():
    shown = inspect({"train": rows(("q", "a"))})["shown"][0]["pieces"]
    assert shown == [
        {"text": "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n", "trained": False},
        {"text": "a<|im_end|>", "trained": True},
    ]


def test_earlier_turns_that_are_trained_on_are_shown_as_such(tmp_path):
    turns = [{"role": role, "content": role[0]} for role in ("user", "assistant") * 2]
    (tmp_path / "a.jsonl").write_text(json.dumps({"messages": turns}))
    pieces = inspect(open_splits(str(tmp_path / "a.jsonl")))["shown"][0]["pieces"]
    assert [piece["text"] for piece in pieces if piece["trained"]] == ["a<|im_end|>"] * 2


@pytest.mark.parametrize(
    ("made", "options", "warning"),
    [
        (rows(("q", "a" * 40), ("r", "b")), {}, "1 responses of train are longer than max_new_tokens = 16"),
        (rows(("q" * 200, "a"), ("r", "b")), {}, "1 rows of train are longer than max_length = 128"),
        (rows(("q", "a"), ("q", "b")), {}, "all rows of train have the same prompt"),
    ],
)
def test_what_should_be_looked_at_is_a_warning(made, options, warning):
    assert any(told.startswith(warning) for told in inspect({"train": made}, **options)["warnings"])


@pytest.mark.parametrize(
    ("template", "warning"),
    [
        (None, "no chat template is used"),
        ("{% for m in messages %}{{ m.content }} {% endfor %}", "the chat template ends no turn"),
        ("{% for m in messages if m.role != 'system' %}{{ m.content }}<|im_end|>{% endfor %}", "has no system role"),
    ],
)
def test_what_a_template_lacks_is_a_warning(template, warning):
    tokenizer = make_tiny_tokenizer()
    tokenizer.chat_template = template
    report = inspect({"train": rows(("q", "a"), ("r", "b"))}, tokenizer=tokenizer)
    assert any(warning in told for told in report["warnings"])


def test_nothing_is_warned_of_where_all_is_well():
    assert inspect({"train": rows(("q", "a"), ("r", "b"))})["warnings"] == []


def test_only_so_many_rows_are_looked_at_as_asked_for(folder):
    train = inspect(open_splits(str(folder)), rows=3)["splits"]["train"]
    assert (train["rows"], train["cut_off"]) == (3, True)
