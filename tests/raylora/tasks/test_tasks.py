from __future__ import annotations

import json
import pickle
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from raylora.errors import UserError
from raylora.metrics.core.numbers import final_number, last_number
from raylora.tasks import available, make_task
from trainables.testing import make_arithmetic_rows


def read(task, split):
    source = task.splits()[split]
    if hasattr(source, "tables"):
        return [row for table in source.tables() for row in table.to_pylist()]
    return source()


def write_jsonl(path: Path, rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def chain_sum(**options):
    return make_task("reasoning_gym/chain_sum", {"train_rows": 40, "test_rows": 20, **options})


# --- the registry ---


def test_every_family_and_generator_is_listed():
    names = available()
    assert {"gsm8k", "instruct", "reasoning_gym/chain_sum", "reasoning_gym/gsm_symbolic"} <= set(names)
    assert len(names) > 100


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("chain_sums", {}, r"task.name: unknown 'chain_sums'; choose "),
        ("reasoning_gym/chain_sums", {}, r"no generator 'chain_sums'; did you mean .*chain_sum"),
        ("reasoning_gym/chain_sum", {"min_digit": 2}, r"task.options: .*min_digit=2.*unexpected keyword"),
        (
            "reasoning_gym/chain_sum",
            {"min_terms": 9, "max_terms": 2},
            r"task.options: reasoning_gym/chain_sum refuses",
        ),
        ("reasoning_gym/chain_sum", {"train_rows": 0}, r"task.train_rows: 0 is not a positive whole number"),
        ("reasoning_gym/chain_sum", {"path": "x"}, r"task.path: .* generates its rows"),
        ("instruct", {}, r"task.path: instruct needs it"),
        ("instruct", {"path": "x.parquet"}, r"task.path: 'x.parquet' does not exist"),
        (
            "instruct",
            {"path": ".", "colour": 1},
            r"task.colour: instruct has no such option; it takes path, train",
        ),
        ("instruct", {"path": ".", "match": "fuzzy"}, r"task.match: unknown 'fuzzy'; choose one of exact"),
        (
            "instruct",
            {"path": ".", "prompt_template": "{a}"},
            r"task.options.response_column: missing; prompt_template and response_column go together",
        ),
        (
            "instruct",
            {"path": ".", "prompt_template": "{", "response_column": "b"},
            r"task.options.prompt_template: '{'; allowed: text with columns in {braces}",
        ),
    ],
)
def test_what_cannot_be_done_is_one_line_that_names_field_and_value(name, options, message):
    with pytest.raises(UserError, match=message) as caught:
        make_task(name, options)
    assert "\n" not in str(caught.value)


def test_options_left_open_keep_their_defaults_and_none_may_be_given_twice():
    assert make_task("reasoning_gym/gcd", {"test_rows": 7}, train_rows=None, path=None).test_rows == 7
    with pytest.raises(UserError, match=r"task.test_rows: given twice"):
        make_task("reasoning_gym/gcd", {"test_rows": 7}, test_rows=8)


# --- reasoning_gym ---


def test_the_same_seed_gives_the_same_rows_and_another_seed_others():
    first, again, other = (read(chain_sum(seed=seed), "train") for seed in (3, 3, 4))
    assert first == again
    assert {row["prompt"] for row in first} != {row["prompt"] for row in other}


def test_no_test_question_is_in_train_and_none_occurs_twice():
    # Sums of two one-digit numbers: 81 questions in each order and sign, so independent draws would collide.
    task = chain_sum(min_terms=2, max_terms=2, min_digits=1, max_digits=1, train_rows=60, test_rows=60)
    train, test = ([row["prompt"] for row in read(task, split)] for split in ("train", "test"))
    assert len(set(train)) == len(train) == len(set(test)) == len(test) == 60
    assert not set(train) & set(test)


def test_the_test_set_does_not_depend_on_the_size_of_train():
    assert read(chain_sum(train_rows=5), "test") == read(chain_sum(train_rows=50), "test")


def test_a_generator_that_runs_out_of_questions_says_so():
    task = make_task("reasoning_gym/coin_flip", {"min_trials": 3, "max_trials": 3, "train_rows": 5000})
    with pytest.raises(UserError, match=r"task.(train|test)_rows: .* has only about \d+ distinct questions"):
        read(task, "train")


def test_a_generator_without_answers_says_so():
    with pytest.raises(UserError, match="gives no reference answers"):
        read(make_task("reasoning_gym/graph_color"), "train")


def test_only_full_credit_counts():
    task = chain_sum()
    row = read(task, "train")[0]
    answer = row["answer"]
    assert task.score([answer, f" {answer}\n", f"I think it is {answer}", "", "x"], [row] * 5) == [
        1,
        1,
        0,
        0,
        0,
    ]


def test_each_completion_needs_its_row():
    with pytest.raises(ValueError, match="completions: 1 for 0 rows"):
        chain_sum().score(["1"], [])


def test_a_task_pickles_and_scores_afterwards():
    task = chain_sum()
    rows = read(task, "train")[:3]
    task.score(["1"] * 3, rows)
    copy = pickle.loads(pickle.dumps(task))
    assert copy.score([row["answer"] for row in rows], rows) == [1.0] * 3


def test_the_reference_answer_of_every_generator_gets_full_credit():
    """Metadata survive as JSON (tuples, integer keys): the scorers compare them with ==."""
    without_answers = {"boxnet", "graph_color", "propositional_logic", "rubiks_cube", "rush_hour"}
    # zebra_puzzles needs pycosat, which needs a compiler.
    skipped = {
        "zebra_puzzles",
        "composite",
        "knight_swap",
        "intermediate_integration",
    } | without_answers  # the middle two are slow
    failed = []
    for name in available():
        generator = name.removeprefix("reasoning_gym/")
        if generator == name or generator in skipped:
            continue
        task = make_task(name, {"train_rows": 2, "test_rows": 1})
        rows = read(task, "train")
        if task.score([row["answer"] for row in rows], rows) != [1.0, 1.0]:
            failed.append(generator)
        if task.score(["no idea", ""], rows)[1] != 0.0:
            failed.append(f"{generator} (empty)")
    assert failed == []


def test_composite_mixes_generators():
    datasets = [{"name": "gcd", "weight": 1}, {"name": "chain_sum", "config": {"max_terms": 3}}]
    task = make_task("reasoning_gym/composite", {"datasets": datasets, "train_rows": 20, "test_rows": 5})
    rows = read(task, "train")
    sources = {json.loads(row["metadata"])["entry"]["source_dataset"] for row in rows}
    assert sources == {"gcd", "chain_sum"}
    assert task.score([row["answer"] for row in rows], rows) == [1.0] * 20


def test_without_pycosat_all_but_the_zebra_puzzles_work():
    import subprocess

    script = (
        "import importlib.util as u, sys; real = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'pycosat' else real(name, *a)\n"
        "from raylora.tasks import make_task\n"
        "assert make_task('reasoning_gym/gcd', {'train_rows': 2, 'test_rows': 1}).splits()['train']()\n"
        "try:\n"
        "    make_task('reasoning_gym/zebra_puzzles', {'train_rows': 2}).splits()['train']()\n"
        "except Exception as error: print(error)\n"
    )
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=root, check=True)
    assert "pip install pycosat" in done.stdout


def test_without_reasoning_gym_the_remedy_is_named(monkeypatch):
    import importlib.util

    monkeypatch.delitem(sys.modules, "reasoning_gym")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install raylora\[gym\]"):
        make_task("reasoning_gym/chain_sum")
    assert "instruct" in available() and not [name for name in available() if name.startswith("reasoning_gym/")]


# --- instruct ---


def row(answer: str, response: str = "") -> dict[str, str]:
    return {"answer": answer, "response": response or answer, "metadata": "{}"}


@pytest.mark.parametrize(
    ("match", "completion", "answer", "response", "score"),
    [
        ("exact", " The cat. ", "the cat", "", 1),
        ("exact", "The correct answer is TRUE", "true", "the correct answer is true", 1),
        ("exact", "a cat", "the cat", "", 0),
        ("number", "so 3 * 4 = 12 apples", "12.0", "", 1),
        ("number", "12, or rather 13", "12", "", 0),
        ("number", "none", "12", "", 0),
        ("contains", "I say: Answer2!", "answer2", "", 1),
        ("contains", "answer21", "answer2", "", 0),
        ("contains", "anything", "", " ", 0),
    ],
)
def test_each_match_accepts_what_it_says(tmp_path, match, completion, answer, response, score):
    path = write_jsonl(tmp_path / "train.jsonl", make_arithmetic_rows(2))
    task = make_task("instruct", {"path": str(path), "match": match})
    assert task.score([completion], [row(answer, response)]) == [score]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("$1,250.00 each", 1250),
        ("5-3", 3),
        ("it is -3", -3),
        ("-$3", -3),
        ("$-3", -3),
        ("1, 2,3", 3),
        ("0.5.", "0.5"),
    ],
)
def test_the_last_number_is_read_as_people_write_it(text, number):
    assert last_number(text) == Decimal(number)


def test_a_text_without_digits_has_no_number():
    assert last_number("none") is None


def test_a_folder_gives_the_splits_that_it_has(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = make_arithmetic_rows(6)
    pq.write_table(pa.Table.from_pylist(rows[:3]), tmp_path / "train-00000-of-00002.parquet")
    pq.write_table(pa.Table.from_pylist(rows[3:5]), tmp_path / "train-00001-of-00002.parquet")
    write_jsonl(tmp_path / "test.jsonl", [{"question": "1 + 1?", "answer": 2}])
    task = make_task("instruct", {"path": str(tmp_path)})
    assert sorted(task.splits()) == ["test", "train"]
    assert sorted(row["prompt"] for row in read(task, "train")) == sorted(row["prompt"] for row in rows[:5])
    told = read(task, "test")[0]
    assert {name: told[name] for name in ("prompt", "response", "answer", "metadata", "problem")} == {
        "prompt": "1 + 1?", "response": "2", "answer": "2", "metadata": "{}", "problem": None,
    }  # fmt: skip


LABELLED = {"prompt_template": "{text} Right?", "response_column": "label", "labels": {0: "no", 1: "yes"}}


def test_labelled_rows_become_prompts_and_words(tmp_path):
    write_jsonl(tmp_path / "train.jsonl", [{"text": "It rains.", "label": 1}, {"text": "It rain {x}.", "label": 0}])
    rows = read(make_task("instruct", {"path": str(tmp_path), **LABELLED}), "train")
    assert [(row["prompt"], row["response"], row["answer"]) for row in rows] == [
        ("It rains. Right?", "yes", "yes"),
        ("It rain {x}. Right?", "no", "no"),
    ]


def test_a_hub_dataset_opens_like_a_folder(monkeypatch):
    import datasets

    calls = []

    def load(*args, **options):
        calls.append((args, options))
        return datasets.Dataset.from_list([{"question": "q", "answer": "so\n#### 3"}])

    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda *a: ["train", "test"])
    monkeypatch.setattr(datasets, "load_dataset", load)
    task = make_task("gsm8k")
    assert sorted(task.splits()) == ["test", "train"] and not calls
    assert read(task, "train")[0]["answer"] == "3"
    assert calls == [(("openai/gsm8k", "main"), {"split": "train"})]


def test_a_hub_dataset_out_of_reach_is_one_line(monkeypatch):
    import datasets

    def unreachable(*args):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(datasets, "get_dataset_split_names", unreachable)
    with pytest.raises(UserError, match=r"task.path: 'openai/gsm8k' is no local .*: no route; give a local path"):
        make_task("gsm8k")


# --- gsm8k ---


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("3 + 4 = 7\n#### 7", "7"),
        ("#### $1,234.00", "1234"),
        ("#### 7\nNext question: 12", "7"),
        ("#### 7 #### 8", "8"),
        ("the answer is 18.", "18"),
        ("so 9 ####", "9"),
        ("#### -2.5", "-2.5"),
    ],
)
def test_the_final_number_is_the_one_after_the_mark(text, number):
    assert final_number(text, "####") == Decimal(number)


def test_gsm8k_compares_final_numbers(tmp_path):
    solution = "Half of 48 is <<48/2=24>>24.\n#### 1,024"
    path = write_jsonl(tmp_path / "train.jsonl", [{"question": "How many?", "answer": solution}])
    task = make_task("gsm8k", {"path": str(path)})
    (only,) = read(task, "train")
    assert only["response"] == solution and only["answer"] == "1024"
    texts = ["#### 1024", "It is $1,024.00", "1024 or 5", ""]
    assert task.score(texts, [only] * 4) == [1.0, 1.0, 0.0, 0.0]
