from __future__ import annotations

import threading

import numpy as np
import pyarrow as pa
import pytest

from raylora.data import stream
from raylora.data.stream import prompt_keys


def test_rows_have_one_key_where_their_prompts_are_one_and_plain_text_counts_as_its_own():
    table = pa.table({"prompt": ["q", "q", "r", "", "", None], "response": ["a", "b", "a", "one", "two", None]})
    first, second, other, one, two, nothing = prompt_keys(table).tolist()
    assert first == second
    assert len({first, other, one, two, nothing}) == 5


def test_how_far_it_is_is_said_while_no_row_is_done(monkeypatch):
    monkeypatch.setattr(stream, "_SAY_EVERY_S", 0.01)
    said, heard = [], threading.Event()

    def say(text):
        said.append(text)
        heard.set()

    with stream.Counter(say, "rows tokenised", 2000) as counter:
        assert heard.wait(10)
        counter.add(1500)
        heard.clear()
        assert heard.wait(10)
    assert said[0] == "data: 0 of 2,000 rows tokenised" and said[-1].startswith("data: 1,500 of 2,000 rows tokenised")


@pytest.mark.parametrize("positions", [[3], [3, 4], [3, 5], [0, 1, 2, 3], [0, 1, 3], [2, 3, 4, 6]])
def test_work_is_cut_into_rows_of_blocks_whether_or_not_rows_are_left_out(positions):
    (item,) = stream._items(["a", "b", "c"], [2, 3, 2], np.array(positions))
    begin = {"a": 0, "b": 2, "c": 5}[item["parts"][0]]
    assert stream._unpacked(item["positions"], item["rows"]).tolist() == positions
    assert (stream._unpacked(item["inside"], item["rows"]) + begin).tolist() == positions
