from __future__ import annotations

import errno
import os
import pickle

import numpy as np
import pyarrow as pa
import pytest

from trainables import rows as module
from trainables.batching import collate
from trainables.rows import Rows, as_rows, set_apart


def table(first: int, count: int) -> pa.Table:
    numbers = range(first, first + count)
    return pa.table(
        {
            "row": pa.array(numbers, pa.int64()),
            "answer": pa.array([None if n == 3 else str(n) for n in numbers]),
            "prompt_ids": pa.array([[n] * (n % 3 + 1) for n in numbers], pa.list_(pa.int32())),
            "response_ids": pa.array([[n, 0] for n in numbers], pa.list_(pa.int32())),
        }
    )


@pytest.fixture
def files(tmp_path) -> list[str]:
    """Blocks of 5 and 4 rows, in record batches of at most 2."""
    paths = []
    for first, count in ((0, 5), (5, 4)):
        paths.append(str(tmp_path / f"{first}.arrow"))
        with pa.ipc.new_file(paths[-1], table(0, 1).schema) as writer:
            writer.write_table(table(first, count), max_chunksize=2)
    return paths


def test_rows_are_those_of_the_files_in_order(files) -> None:
    rows, wanted = Rows(files), table(0, 9).to_pylist()
    assert len(rows) == 9
    found = [{name: value.tolist() if name.endswith("_ids") else value for name, value in row.items()} for row in rows]
    assert found == wanted
    assert rows[-1]["row"] == 8
    with pytest.raises(IndexError):
        rows[9]


def test_a_process_without_addresses_for_a_map_reads_the_file(files, monkeypatch) -> None:
    def fails(*args, **kwargs):
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    wanted = Rows(files).table()
    monkeypatch.setattr(module.mmap, "mmap", fails)
    assert Rows(files).table() == wanted


def test_a_selection_keeps_its_order_and_can_be_selected_from(files) -> None:
    rows = Rows(files, np.array([7, 0, 3, 3]))
    assert [row["row"] for row in rows] == [7, 0, 3, 3]
    assert [row["row"] for row in rows[1:]] == [0, 3, 3]
    assert [row["row"] for row in rows[1::2]] == [0, 3]
    assert [row["row"] for row in rows.take([3, 0])] == [3, 7]


def test_a_table_of_a_selection_has_its_rows_in_order(files) -> None:
    assert Rows(files, np.array([7, 0, 3, 8, 1])).table()["row"].to_pylist() == [7, 0, 3, 8, 1]
    assert Rows(files).table().equals(table(0, 9))
    assert Rows(files)[:0].table().schema.names == table(0, 1).schema.names


def test_tokens_are_views_and_read_when_asked_for(files) -> None:
    ids = Rows(files)[2]["prompt_ids"]
    assert ids.dtype == np.int32 and not ids.flags.owndata and not ids.flags.writeable


def test_it_travels_as_names_and_positions(files) -> None:
    rows = Rows(files, np.arange(9, dtype=np.int32))
    list(rows)
    packed = pickle.dumps(rows)
    assert len(packed) < 1000
    assert [row["row"] for row in pickle.loads(packed)] == list(range(9))
    assert pickle.loads(pickle.dumps(rows[4]))["answer"] == "4"


def test_pages_that_were_read_are_given_back(files, monkeypatch) -> None:
    monkeypatch.setattr(module, "_MAPPED_BYTES", 50)
    assert [row["prompt_ids"][0] for row in Rows(files)] == list(range(9))


def test_rows_of_files_make_the_batches_of_lists(files) -> None:
    lazy, plain = collate(Rows(files)[2:6], 0), collate(table(0, 9).to_pylist()[2:6], 0)
    assert lazy.inputs["input_ids"].equal(plain.inputs["input_ids"])
    assert lazy.labels.equal(plain.labels)


def test_tables_in_the_object_store_are_read_alike(files, ray_local) -> None:
    import ray

    rows = as_rows([ray.put(table(0, 5)), ray.put(table(5, 4))])
    assert as_rows(rows) is rows
    moved = Rows(files, np.array([8, 1, 5])).in_object_store(rows_per_table=2)
    assert [row["row"] for row in rows] == list(range(9))
    assert [row["row"] for row in moved] == [8, 1, 5]
    assert len(moved.parts) == 2


def test_rows_set_apart_are_an_eighth_at_most_and_the_rest_keeps_its_order(files) -> None:
    for rows in (Rows(files), list(range(9))):
        rest, apart = set_apart(rows, 32, seed=0)
        assert type(rest) is type(apart) is type(rows) and (len(rest), len(apart)) == (8, 1)
    assert sorted([*rest, *apart]) == rows and rest == sorted(rest)
    many = list(range(100))
    assert len(set_apart(many, 5, seed=0)[1]) == 5
    assert set_apart(many, 5, seed=0) == set_apart(many, 5, seed=0) != set_apart(many, 5, seed=1)


def test_where_no_rows_are_wanted_or_too_few_are_there_all_are_trained_on() -> None:
    many = list(range(100))
    assert set_apart(many, 0, seed=0)[0] is many and not set_apart(many, 0, seed=0)[1]
    assert set_apart(many[:7], 32, seed=0) == (many[:7], ())
