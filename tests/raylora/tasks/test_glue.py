from __future__ import annotations

import pytest

from raylora.errors import UserError
from raylora.tasks import available, make_task

PUBLISHED = {
    "cola": ({"sentence": "It rains."}, 1, "acceptable"),
    "sst2": ({"sentence": "fine"}, 0, "negative"),
    "mrpc": ({"sentence1": "a", "sentence2": "b"}, 1, "equivalent"),
    "stsb": ({"sentence1": "a", "sentence2": "b"}, 3.25, "3.2"),
    "qqp": ({"question1": "a", "question2": "b"}, 0, "not_duplicate"),
    "mnli": ({"premise": "a", "hypothesis": "b"}, 2, "contradiction"),
    "qnli": ({"question": "a", "sentence": "b"}, 0, "entailment"),
    "rte": ({"sentence1": "a", "sentence2": "b"}, 1, "not_entailment"),
    "wnli": ({"sentence1": "a", "sentence2": "b"}, 1, "entailment"),
}


def test_all_nine_are_listed() -> None:
    assert {f"glue/{name}" for name in PUBLISHED} <= set(available())


@pytest.mark.parametrize("name", PUBLISHED)
def test_texts_go_by_their_names_and_labels_are_words(files, rows_of, name) -> None:
    texts, label, word = PUBLISHED[name]
    folder = files(train=[{**texts, "label": label, "idx": 0}], validation=[{**texts, "label": label, "idx": 1}])
    task = make_task(f"glue/{name}", path=str(folder))
    row = rows_of(task, "train")[0]
    assert row["prompt"] == f"{name} " + " ".join(f"{key}: {value}" for key, value in texts.items())
    assert row["response"] == word
    assert list(task.splits()) == ["train", "test"]  # the published test labels are secret


def test_copies_with_numbered_sentences_are_read(files, rows_of) -> None:
    task = make_task("glue/cola", path=str(files(train=[{"sentence1": "It rains.", "label": "1"}])))
    assert rows_of(task, "train")[0]["prompt"] == "cola sentence: It rains."


def test_labels_may_be_words_numbers_or_true_and_false(files, rows_of) -> None:
    labels = (True, False, "1", 0.0, "acceptable")
    rows = [{"sentence": "It rains.", "label": label} for label in labels]
    for label, row in zip(labels, rows, strict=True):
        task = make_task("glue/cola", path=str(files(train=[row])))
        word = "unacceptable" if label in (False, 0.0) else "acceptable"
        assert rows_of(task, "train")[0]["response"] == word


def test_cola_goes_by_matthews_and_shows_accuracy(files, rows_of, figures) -> None:
    rows = [{"sentence": str(n), "label": n % 2} for n in range(4)]
    task = make_task("glue/cola", path=str(files(train=rows, validation=rows)))
    assert (task.metric, task.mode, task.worst) == ("matthews", "max", -1.0)
    found = figures(task, "test", ["unacceptable", "acceptable", "unacceptable", "acceptable"], rows_of(task, "test"))
    assert found["matthews"] == 1.0 and found["accuracy"] == 1.0


def test_stsb_is_measured_against_the_label_as_it_is(files, rows_of, figures) -> None:
    rows = [{"sentence1": "a", "sentence2": "b", "label": value} for value in (0.0, 2.5, 5.0)]
    task = make_task("glue/stsb", path=str(files(train=rows, validation=rows)))
    found = figures(task, "test", ["0.0", "2.6", "5.0"], rows_of(task, "test"))
    assert found["pearson"] == pytest.approx(0.9995, abs=1e-3) and found["spearman"] == pytest.approx(1.0)


def test_an_unknown_set_or_label_is_told(files, rows_of) -> None:
    with pytest.raises(UserError, match=r"glue has no set 'sst'; choose one of cola"):
        make_task("glue/sst")
    task = make_task("glue/sst2", path=str(files(train=[{"sentence": "fine", "label": 7}])))
    assert "label '7' is none of negative, positive" in rows_of(task, "train")[0]["problem"]


def test_the_texts_are_there_apart_for_a_head_of_labels(files, rows_of) -> None:
    pair = {"question1": "Why?", "question2": None, "label": 0}
    task = make_task("glue/qqp", path=str(files(train=[pair])))
    assert rows_of(task, "train")[0]["metadata"]["texts"] == ["Why?", ""]
    assert task.classes == ("not_duplicate", "duplicate") and not task.numeric


@pytest.mark.parametrize("label", ["high", "nan", True])
def test_a_score_that_is_no_number_is_told(files, rows_of, label) -> None:
    task = make_task("glue/stsb", path=str(files(train=[{"sentence1": "a", "sentence2": "b", "label": label}])))
    assert task.numeric and "is no number" in rows_of(task, "train")[0]["problem"]


def test_a_label_of_no_class_is_the_rows_problem(files, rows_of) -> None:
    rows = [{"sentence": "a", "label": label} for label in ("inf", "nan", "7", "fine")]
    found = rows_of(make_task("glue/cola", path=str(files(train=rows))), "train")
    assert all(row["problem"].endswith("is none of unacceptable, acceptable") for row in found)
