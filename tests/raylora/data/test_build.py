from __future__ import annotations

import json
from pathlib import Path

import pytest

from raylora.data import build as data
from raylora.data.tokenise import encode, schema
from raylora.errors import UserError
from raylora.tasks import make_task
from raylora.tasks.base import Task
from trainables.testing import make_arithmetic_rows, make_tiny_tokenizer


class Sums(Task):
    """Additions, held in memory; remembers which splits were read."""

    name = "sums"
    max_new_tokens = 8

    def __init__(self, **splits):
        self.rows = splits
        self.read: list[str] = []

    def splits(self):
        def reader(split):
            def read():
                self.read.append(split)
                return self.rows[split]

            return read

        return {split: reader(split) for split in self.rows}

    def score(self, completions, rows):
        return [float(text == row["answer"]) for text, row in zip(completions, rows, strict=True)]


ROWS = make_arithmetic_rows(60)


@pytest.fixture(autouse=True)
def home(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("RAYLORA_HOME", str(tmp_path_factory.getbasetemp() / "home"))


def build(task, folder, **changes):
    settings = {"proxy": 0.25, "seed": 0, "validation_rows": 10, "max_length": 128, "quiet": True}
    return data.build(task, folder, **(settings | changes))


def prompts(refs) -> list[str]:
    return [row["prompt"] for row in list(refs)]


# --- encode ---


def test_prompt_and_response_join_to_the_conversation_and_end_with_eos():
    tokenizer = make_tiny_tokenizer()
    rendered, prompt_ids, response_ids = encode(tokenizer, ["What is 3 + 4?", "é"], ["7", "x y"])
    assert rendered[0] == "<|im_start|>user\nWhat is 3 + 4?<|im_end|>\n<|im_start|>assistant\n"
    for text, prompt, response, answer in zip(rendered, prompt_ids, response_ids, ["7", "x y"], strict=True):
        assert tokenizer.decode(prompt) == text
        assert tokenizer.decode(response) == f"{answer}<|im_end|>"
        assert response[-1] == tokenizer.eos_token_id
        assert response.count(tokenizer.eos_token_id) == 1


@pytest.mark.parametrize(
    ("system", "start"),
    [
        (None, "<|im_start|>user"),
        ("", "<|im_start|>system\n<|im_end|>\n<|im_start|>user"),
        ("Be brief.", "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user"),
    ],
)
def test_the_system_message_is_there_only_when_given(system, start):
    rendered, _, _ = encode(make_tiny_tokenizer(), ["hello"], ["x"], system=system)
    assert rendered[0].startswith(start)


def test_without_a_chat_template_the_response_is_set_off_by_one_space():
    tokenizer = make_tiny_tokenizer()
    rendered, prompt_ids, response_ids = encode(tokenizer, ["Sum:", "Sum:\n"], ["7", "7"], chat_template=False)
    assert rendered == ["Sum:", "Sum:\n"]
    whole = [tokenizer.decode(a + b) for a, b in zip(prompt_ids, response_ids, strict=True)]
    assert whole == ["Sum: 7<|im_end|>", "Sum:\n7<|im_end|>"]


def test_a_bos_token_is_added_where_the_tokenizer_adds_one_itself():
    from tokenizers.processors import TemplateProcessing

    tokenizer = make_tiny_tokenizer()
    bos = tokenizer.bos_token_id
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", bos)]
    )
    _, plain, responses = encode(tokenizer, ["Sum:"], ["7"], chat_template=False)
    assert plain[0][0] == bos and plain[0].count(bos) == 1 and bos not in responses[0]
    _, chat, _ = encode(tokenizer, ["Sum:"], ["7"])
    assert chat[0].count(bos) == 2  # the two of the template, none on top


def test_an_empty_prompt_still_gives_the_model_a_token():
    _, prompt_ids, _ = encode(make_tiny_tokenizer(), [""], ["7"], chat_template=False)
    assert len(prompt_ids[0]) == 1


def test_a_template_that_refuses_the_system_message_is_a_clear_error():
    tokenizer = make_tiny_tokenizer()
    tokenizer.chat_template = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}x"
    with pytest.raises(UserError, match=r"task.system: .*no system.*set task.system to null"):
        encode(tokenizer, ["hi"], ["x"], system="Be brief.")


# --- build ---


@pytest.fixture(scope="module")
def prepared(ray_local, tiny_model):
    task = Sums(train=ROWS)
    return build(task, tiny_model)


def test_the_tables_have_one_schema(prepared):
    for rows in (prepared.train, prepared.proxy, prepared.validation, prepared.test()[0]):
        assert rows.table().schema.equals(schema())


def test_no_row_is_in_two_splits_and_none_is_lost(prepared):
    parts = [prepared.train, prepared.validation, prepared.test()[0]]
    rows = [row["row"] for part in parts for row in part]
    assert sorted(rows) == list(range(60))
    assert [len(part) for part in parts] == [44, 10, 6]  # test: 10 % of 60
    counts = prepared.counts | prepared.test()[1]
    assert {key: counts[key] for key in ("source", "train", "proxy", "validation", "test")} == {
        "source": 60, "train": 44, "proxy": 11, "validation": 10, "test": 6,
    }  # fmt: skip


def test_a_row_still_says_where_it_came_from(prepared):
    for row in list(prepared.train):
        source = ROWS[row["row"]]
        assert source["prompt"] in row["prompt"]
        assert (row["response"], row["answer"], row["metadata"]) == (
            source["response"],
            source["answer"],
            "{}",
        )


def test_train_keeps_the_order_of_the_source_and_proxy_is_part_of_it(prepared):
    train = [row["row"] for row in list(prepared.train)]
    proxy = [row["row"] for row in list(prepared.proxy)]
    assert train == sorted(train) and proxy == sorted(proxy) and set(proxy) < set(train)


def test_token_counts_are_those_of_the_rows(prepared):
    rows = list(prepared.proxy)
    tokens = sum(len(row["prompt_ids"]) + len(row["response_ids"]) for row in rows)
    assert prepared.counts["proxy_tokens"] == tokens


def test_the_seed_decides_what_is_drawn(prepared, tiny_model):
    same = build(Sums(train=ROWS), tiny_model)
    other = build(Sums(train=ROWS), tiny_model, seed=1)
    for part in ("train", "proxy", "validation"):
        assert prompts(getattr(prepared, part)) == prompts(getattr(same, part))
        assert prompts(getattr(prepared, part)) != prompts(getattr(other, part))
    assert prompts(prepared.test()[0]) == prompts(other.test()[0])  # a carved test set is the same for every seed


def test_the_test_split_is_read_when_it_is_asked_for_and_once(ray_local, tiny_model):
    task = Sums(train=ROWS[:40], test=ROWS[40:])
    prepared = build(task, tiny_model)
    assert task.read == ["train"] and "test" not in prepared.counts
    assert len(list(prepared.test()[0])) == 20
    _, counts = prepared.test()
    assert task.read == ["train", "test"]
    assert counts == {"test": 20, "test_dropped_too_long": 0, "test_prompts_in_train": 0}
    assert "test" not in prepared.counts


def test_a_validation_split_of_the_source_is_used(ray_local, tiny_model):
    task = Sums(train=ROWS[:30], validation=[*ROWS[30:50], ROWS[0]], test=ROWS[50:])
    prepared = build(task, tiny_model, validation_rows=100)
    assert task.read == ["train", "validation"]
    assert prepared.counts["validation"] == 21
    assert prepared.counts["train"] == 29  # ROWS[0] is held out, so it is not trained on
    assert prepared.counts["train_dropped_duplicate"] == 1


def test_a_prompt_of_validation_or_test_is_never_trained_on(ray_local, tiny_model):
    prepared = build(Sums(train=ROWS[:20] * 3), tiny_model)
    train = set(prompts(prepared.train))
    assert not train & set(prompts(prepared.validation))
    assert not train & set(prompts(prepared.test()[0]))
    counts = prepared.counts | prepared.test()[1]
    kept = counts["train"] + counts["validation"] + counts["test"]
    assert kept + counts["train_dropped_duplicate"] == 60


def test_rows_over_max_length_are_dropped_and_counted(ray_local, tiny_model):
    long = {"prompt": "very " * 40, "response": "x", "answer": "x"}
    wordy = {"prompt": "Say it", "response": "very " * 40, "answer": "x"}
    task = Sums(train=[*ROWS[:20], *[long] * 2, wordy], test=[*ROWS[20:25], long, wordy])
    prepared = build(task, tiny_model, validation_rows=3, max_length=80)
    assert prepared.counts["train_dropped_too_long"] >= 2
    assert prepared.counts["validation_dropped_too_long"] == 2
    rows = list(prepared.train)
    assert all(len(row["prompt_ids"]) + len(row["response_ids"]) <= 80 for row in rows)
    _, counts = prepared.test()
    # How long the reference is must not decide what is tested: only the prompt counts.
    assert (counts["test"], counts["test_dropped_too_long"]) == (6, 1)


def test_a_bounded_task_is_sampled(ray_local, tiny_model):
    task = Sums(train=ROWS[:40], test=ROWS[40:])
    task.train_rows, task.test_rows = 20, 5
    prepared = build(task, tiny_model)
    counts = prepared.counts | prepared.test()[1]
    assert [counts[part] for part in ("train", "validation", "test")] == [10, 10, 5]
    assert [row["row"] for row in list(prepared.train)] != list(range(10))


def test_files_pass_through_to_tokens(ray_local, tiny_model, tmp_path):
    lines = [json.dumps({"question": row["prompt"], "answer": row["answer"]}) for row in ROWS]
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    prepared = build(make_task("instruct", path=str(tmp_path)), tiny_model, system="Add.")
    rows = list(prepared.train)
    assert rows[0]["prompt"].startswith("<|im_start|>system\nAdd.<|im_end|>")
    assert [ROWS[row["row"]]["answer"] for row in rows] == [row["answer"] for row in rows]


def test_missing_columns_are_listed(ray_local, tiny_model, tmp_path):
    (tmp_path / "train.jsonl").write_text(json.dumps({"sentence": "a", "score": 1}))
    with pytest.raises(UserError, match=r"need the columns prompt and response .*; present: sentence, score") as caught:
        build(make_task("instruct", path=str(tmp_path)), tiny_model)
    assert "\n" not in str(caught.value)
    assert (caught.value.field, caught.value.value) == ("task.path", ["sentence", "score"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"proxy": 0.0}, r"task.proxy: 0.0 is not in \(0, 1\]"),
        ({"validation_rows": 0}, "task.validation_rows: 0 is below 1"),
        ({"max_length": 8}, "task.max_length: 8 leaves no room"),
    ],
)
def test_settings_out_of_range_name_field_and_value(ray_local, tiny_model, changes, message):
    with pytest.raises(UserError, match=message):
        build(Sums(train=ROWS), tiny_model, **changes)


def test_a_fraction_of_one_shares_the_train_tables(ray_local, tiny_model):
    prepared = build(Sums(train=ROWS), tiny_model, proxy=1.0)
    assert prepared.proxy is prepared.train


# --- small parts ---


def test_the_users_own_data_context_is_left_as_it_was(ray_local, tiny_model):
    from ray.data import DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = True
    build(Sums(train=ROWS), Path(tiny_model))
    assert context.enable_progress_bars and not context.execution_options.preserve_order


# --- kept from run to run, and read from elsewhere ---


def test_a_second_build_reads_the_same_rows_from_the_cache(ray_local, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv("RAYLORA_HOME", str(tmp_path))
    said: list[str] = []
    first, second = (build(Sums(train=ROWS), tiny_model, say=said.append) for _ in range(2))
    assert [text.rpartition(" ")[2] for text in said if "60 rows of train" in text and "tokenising" not in text][
        -1
    ] == ("cache")
    assert second.counts == first.counts
    assert second.train.table().equals(first.train.table())
    build(Sums(train=ROWS), tiny_model, system="Add.", say=said.append)
    assert "tokenised in" in said[-1]


def test_nodes_that_do_not_see_the_cache_get_the_same_rows(ray_local, tiny_model, tmp_path, monkeypatch):
    here = build(Sums(train=ROWS), tiny_model)
    monkeypatch.setattr(data, "folder_is_shared", lambda folder: False)
    monkeypatch.setenv("RAYLORA_HOME", str(tmp_path))
    elsewhere = build(Sums(train=ROWS), tiny_model)
    assert not any(isinstance(part, str) for part in elsewhere.train.parts)
    for part in ("train", "proxy", "validation"):
        assert getattr(elsewhere, part).table().equals(getattr(here, part).table())
