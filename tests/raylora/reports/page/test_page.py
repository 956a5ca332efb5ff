from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from raylora.errors import UserError
from raylora.reports.page.page import render, write_page

RUNS = Path(__file__).resolve().parents[3] / "assets" / "runs"
EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"


class Page(HTMLParser):
    """Elements, what they load, and the text that a reader without JavaScript sees."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.told: list[str] = []
        self.scripts: dict[str, str] = {}
        self._inside, self._id = "", ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        given = dict(attrs)
        self.loads += [str(given[name]) for name in ("src", "href", "action", "data", "poster") if name in given]
        self.loads += [name for name in given if name.startswith("on")]
        if tag in ("script", "style"):
            self._inside, self._id = tag, given.get("id") or ""

    def handle_endtag(self, tag: str) -> None:
        if tag == self._inside:
            self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[self._id] = self.scripts.get(self._id, "") + data
        elif not self._inside:
            self.told.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.told).split())

    def json(self, id_: str) -> Any:
        return json.loads(self.scripts[id_])


@pytest.fixture(scope="module")
def long_text(long_run) -> str:
    return render([long_run])


@pytest.fixture(scope="module")
def long_page(long_text) -> Page:
    return Page(long_text)


def test_the_answer_stands_in_words_with_errors_and_certainty(long_page) -> None:
    summary_words = ("Found: ", "against", "for the default recipe", "for the untouched base")
    assert all(words in long_page.text for words in summary_words)
    assert "paired over the rows of test" in long_page.text and "better with a probability of" in long_page.text
    assert "±" in long_page.text and "most memory" in long_page.text


def test_lost_trials_are_told_as_warnings(long_page) -> None:
    assert "15 of 200 trials diverged" in long_page.text
    assert "5 of 200 trials failed" in long_page.text and "out of memory" in long_page.text


def test_every_part_is_there_and_drawn_from_tables_that_are(long_page) -> None:
    charts, tables = long_page.json("page-charts"), long_page.json("page-data")
    assert set(charts) == {
        *("best", "rates", "tradeoffs", "curves", "slices", "pairs", "parallel", "importance", "ranks"),
        *("distribution", "timeline", "map"),
    }
    named = {name for views in charts.values() for view in views.values() for name in _sources(view)}
    assert named and named <= set(tables)


def _sources(part: Any) -> set[str]:
    if isinstance(part, list):
        return set().union(*map(_sources, part))
    if not isinstance(part, dict):
        return set()
    data = part.get("data")
    mine = {data["name"]} if isinstance(data, dict) and "name" in data else set()
    return mine.union(*map(_sources, part.values()))


def test_pages_load_nothing_and_stay_small(long_text, long_page) -> None:
    assert all(load.startswith(("#", "data:")) for load in long_page.loads)
    style = long_text[long_text.index("<style>") : long_text.index("</style>")]
    assert "url(" not in style and "@import" not in style and "sourceMappingURL" not in long_text
    assert "default-src 'none'" in long_text and "connect-src 'none'" in long_text.replace("&#39;", "'")
    assert len(long_text.encode()) < 3_000_000


def test_readers_without_javascript_get_tables(long_page, long_run) -> None:
    assert long_page.tags.count("table") >= 8
    assert long_page.text.count("reasoning_gym/chain_sum") >= 1
    for words in ("rate of lowest loss", "The fronts", "samples: validation loss", "fANOVA", "after trials"):
        assert words in long_page.text
    trials = json.loads(re.search(r"(\[.*\])", json.dumps(long_page.json("page-data")["trials"])).group(1))
    assert len(trials) == 200


def test_texts_of_people_stay_texts(make_run) -> None:
    run = make_run("evil", trials=40, prompt=EVIL, message=EVIL)
    page = Page(render([run]))
    clean = Page(render([make_run("clean", trials=40)]))
    assert sorted(page.tags) == sorted(clean.tags) and "onerror" not in page.loads
    assert EVIL in page.text
    assert any(row["message"] == EVIL for row in page.json("page-data")["trials"])


def test_rows_can_be_left_out(make_run) -> None:
    run = make_run("mailed", trials=12, prompt="SECRET ")
    assert "SECRET What is" in render([run])
    page = render([run], rows=False)
    assert "SECRET" not in page and "Rows are left out of this page." in page


def test_an_unfinished_run_has_a_page(make_run) -> None:
    page = Page(render([make_run("unfinished", trials=16, finished=False)]))
    assert "12 of 16 trials have ended; the best so far is" in page.text
    assert "raylora resume" in page.text and "no answers to test yet" in page.text
    assert sum(row["status"] == "unfinished" for row in page.json("page-data")["trials"]) == 4


def test_a_run_without_any_trial_has_a_page(make_run) -> None:
    run = make_run("fresh", trials=4, finished=False)
    (run / "trials.jsonl").unlink()
    assert "0 of 4 trials have ended; no trial has a result yet" in Page(render([run])).text


def test_recorded_runs_of_all_states_have_pages() -> None:
    assert "finished" in Page(render([RUNS / "finished"])).text
    assert "interrupted" in Page(render([RUNS / "interrupted"])).text


def test_several_runs_are_compared_on_one_page(make_run, long_run) -> None:
    page = Page(render([long_run, make_run("other", trials=20, seed=1)]))
    assert "long and other" in page.text
    assert "Side by side All runs were tested on the same rows." in page.text
    tables = page.json("page-data")
    assert {row["run"] for row in tables["progress"]} == {"long", "other"}
    assert {row["group"] for row in tables["distribution"] if row["by"] == "run"} == {"long", "other"}


@pytest.mark.parametrize(
    ("how", "told"),
    [({"rows": 20}, "were not tested on the same rows"), ({"finished": False}, "Not all runs have been tested.")],
    ids=["other-rows", "unfinished"],
)
def test_what_keeps_runs_from_being_compared_is_told(make_run, how, told) -> None:
    page = Page(render([make_run("one", trials=4), make_run("two", trials=4, **how)]))
    assert told in page.text


def test_legends_tell_of_nothing_that_is_not_there() -> None:
    charts = json.dumps(Page(render([RUNS / "finished"])).json("page-charts"))
    assert not any(told in charts for told in ('"title": "lost"', '"title": "mark"', '"stopped"', '"interrupted"'))


def test_runs_of_one_name_are_kept_apart(make_run) -> None:
    page = Page(render([make_run("same", trials=4), make_run("same", trials=4, seed=1)]))
    assert {row["run"] for row in page.json("page-data")["trials"]} == {"same", "same (2)"}


def test_a_difference_within_its_noise_is_a_warning(make_run) -> None:
    run = make_run("noise", trials=4)
    summary = json.loads((run / "summary.json").read_text())
    summary["best"]["test"] = summary["default"]["test"] + 0.01
    (run / "summary.json").write_text(json.dumps(summary))
    assert "smaller than twice its standard error" in Page(render([run])).text


def test_notes_of_the_data_are_warnings(make_run) -> None:
    run = make_run("leaky", trials=4)
    counts = {"train": 10, "train_dropped_too_long": 3, "test_prompts_in_train": 2}
    (run / "data.json").write_text(json.dumps({"counts": counts, "notes": ["all rows share one prompt"]}))
    text = Page(render([run])).text
    assert "3 rows: train dropped too long." in text and "a leak" in text and "all rows share one prompt" in text


def test_what_reproduces_the_run_is_told(long_page) -> None:
    assert "sha256 of trials.jsonl" in long_page.text and "sha256 of the rows of test" in long_page.text
    assert "raylora 0.2.0" in long_page.text and "raylora export" in long_page.text
    assert "searcher: random" in long_page.text


def test_the_page_is_written_in_one_step(make_run, tmp_path) -> None:
    run = make_run("written", trials=4)
    path = write_page([run], tmp_path / "new" / "page.html")
    assert path.read_text().startswith("<!doctype html>")
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_that_cannot_be_written_is_told(make_run, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--to"):
        write_page([make_run("nowhere", trials=4)], tmp_path / "file" / "page.html")


def test_neither_torch_nor_ray_is_needed(long_run, tmp_path) -> None:
    import subprocess
    import sys

    code = (
        "import sys\nfrom raylora.reports.page.page import write_page\n"
        f"write_page([{str(long_run)!r}], {str(tmp_path / 'page.html')!r})\n"
        "print([name for name in ('torch', 'ray', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_figures_of_curvature_are_drawn_where_there_are_some(make_run) -> None:
    run = make_run("curved", trials=4)
    shutil.copy(Path(__file__).resolve().parents[4] / "docs" / "sweeps" / "curvature.json", run / "curvature.json")
    page = Page(render([run]))
    assert "curvature" in page.json("page-charts") and page.json("page-data")["curvature"]
