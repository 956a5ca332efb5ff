from __future__ import annotations

import bz2
import csv
import gzip
import json
import lzma
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from raylora.data import readers
from raylora.data.readers import class_names, format_of, plan, read
from raylora.errors import UserError

ROWS = [{"prompt": f"q{n}", "response": f"a{n}"} for n in range(5)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)


def rows_of(file, **options):
    return [row for part in plan(str(file), **options) for row in read(part)]


def only(file):
    return [row for _, row in rows_of(file)]


@pytest.mark.parametrize(
    ("name", "squeeze"),
    [
        ("a.jsonl", bytes),
        ("a.jsonl.gz", gzip.compress),
        ("a.ndjson.bz2", bz2.compress),
        ("a.jsonl.xz", lzma.compress),
        ("a.jsonl.zst", lambda text: pa.compress(text, "zstd", asbytes=True)),
        ("a.json", bytes),
    ],
)
def test_lines_are_read_however_they_are_compressed(tmp_path, name, squeeze):
    (tmp_path / name).write_bytes(squeeze(LINES.encode()))
    assert rows_of(tmp_path / name) == list(enumerate(ROWS, 1))


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "stream.arrow"])
def test_columnar_files_are_read(tmp_path, name):
    table, file = pa.Table.from_pylist(ROWS), tmp_path / name
    if name.endswith("parquet"):
        import pyarrow.parquet as pq

        pq.write_table(table, file, row_group_size=2)
    else:
        make = pa.ipc.new_stream if name.startswith("stream") else pa.ipc.new_file
        with make(str(file), table.schema) as writer:
            writer.write_table(table)
    assert rows_of(file) == list(enumerate(ROWS, 1))


@pytest.mark.parametrize("text", [json.dumps(ROWS), json.dumps({"data": ROWS}), json.dumps(ROWS, indent=2)])
def test_an_array_is_read_alone_or_within_an_object(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    assert only(tmp_path / "a.json") == ROWS


def test_objects_spread_over_lines_are_read(tmp_path):
    (tmp_path / "a.json").write_text("\n".join(json.dumps(row, indent=1) for row in ROWS))
    assert rows_of(tmp_path / "a.json")[1] == (5, ROWS[1])


@pytest.mark.parametrize("mark", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_a_byte_order_mark_is_no_part_of_the_first_row(tmp_path, mark, name):
    text = LINES if name == "a.jsonl" else "prompt,response\n" + "".join(f"q{n},a{n}\n" for n in range(5))
    (tmp_path / name).write_bytes(text.encode(mark))
    assert only(tmp_path / name) == ROWS


def test_windows_line_ends_and_blank_lines_are_no_rows(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(LINES.replace("\n", "\r\n\r\n").encode())
    assert rows_of(tmp_path / "a.jsonl")[1] == (3, ROWS[1])
    assert only(tmp_path / "a.jsonl") == ROWS


def test_text_that_looks_like_a_date_or_a_number_stays_text(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"a": "2024-03-05", "b": 1.50, "c": 12345678901234567890}')
    found = only(tmp_path / "a.jsonl")[0]
    assert found["a"] == "2024-03-05"
    assert (str(found["b"]), found["b"] == 1.5, str(found["c"])) == ("1.50", True, "12345678901234567890")
    (tmp_path / "a.csv").write_text("a,b,c\n2024-03-05,007,NA\n")
    assert only(tmp_path / "a.csv") == [{"a": "2024-03-05", "b": "007", "c": "NA"}]


def test_a_broken_line_is_a_row_of_its_own_with_its_number(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(
        b'{"prompt": "q"}\n{"prompt": "a\n b"}\n[1]\n{"prompt": "\xe9"}\n' + b"[" * 100_000
    )
    found = rows_of(tmp_path / "a.jsonl")
    assert [number for number, _ in found] == [1, 2, 3, 4, 5, 6]
    assert found[0][1] == {"prompt": "q"}
    assert found[1][1].startswith("broken: no JSON")
    assert found[3][1] == "broken: list instead of an object"
    assert found[4][1].startswith("broken: not UTF-8")
    assert found[5][1] == "broken: no JSON, RecursionError"


@pytest.mark.parametrize(("name", "mark"), [("a.csv", ","), ("a.csv", ";"), ("a.tsv", "\t"), ("a.csv", "\t")])
def test_tables_of_text_keep_quoted_lines_and_find_their_delimiter(tmp_path, name, mark):
    with (tmp_path / name).open("w", newline="") as file:
        writer = csv.writer(file, delimiter=mark)
        writer.writerows([["prompt", "response"], ["a\nb", 'say "x"'], ["c", "d"]])
    assert rows_of(tmp_path / name) == [
        (2, {"prompt": "a\nb", "response": 'say "x"'}),
        (4, {"prompt": "c", "response": "d"}),
    ]


def test_a_table_row_with_other_fields_than_the_header_is_broken(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"a,b\n1,2,3\n\xe9,x\n")
    found = rows_of(tmp_path / "a.csv")
    assert found[0] == (2, "broken: 3 fields under 2 columns")
    assert found[1][1].startswith("broken: not UTF-8")


def test_a_file_in_several_parts_gives_the_same_rows(tmp_path, monkeypatch):
    (tmp_path / "a.jsonl").write_text(LINES)
    monkeypatch.setattr(readers, "_BYTES_PER_PART", 40)
    parts = plan(str(tmp_path / "a.jsonl"))
    assert len(parts) > 1 and sum(part.rows for part in parts) == 5
    assert rows_of(tmp_path / "a.jsonl") == list(enumerate(ROWS, 1))


def test_chosen_rows_are_the_only_ones(tmp_path):
    (tmp_path / "a.csv").write_text("prompt\n0\n1\n2\n")
    part = plan(str(tmp_path / "a.csv"), count=True)[0]
    assert part.rows == 3
    chosen = replace(part, chosen=np.array([0, 2]))
    assert [row["prompt"] for _, row in read(chosen)] == ["0", "2"]


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.parquet", b"no parquet"), ("a.json", b"[1, 2"), ("a.jsonl.gz", b"no gzip"), ("a.json.xz", b"no xz")],
)
def test_a_file_that_is_not_what_its_name_says_is_one_line(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name}") as caught:
        rows_of(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_names_of_classes_come_from_the_file(tmp_path):
    import datasets

    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    rows = datasets.Dataset.from_list([{"text": "x", "label": 1}], features=features)
    rows.to_parquet(str(tmp_path / "a.parquet"))
    assert class_names(plan(str(tmp_path / "a.parquet"))[0]) == {"label": ["no", "yes"]}


@pytest.mark.parametrize(
    ("name", "known"), [("A.JSONL.GZ", ("jsonl", "gzip")), ("a.txt", None), ("x", None), ("a.gz", None)]
)
def test_the_name_says_the_format(name, known):
    assert format_of(name) == known


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.jsonl", "a.csv", "a.json"])
def test_chosen_rows_keep_their_numbers_in_every_format(tmp_path, name, monkeypatch):
    import pyarrow.parquet as pq

    file, table = tmp_path / name, pa.Table.from_pylist(ROWS)
    if name == "a.parquet":
        pq.write_table(table, file, row_group_size=2)
    elif name == "a.arrow":
        with pa.ipc.new_file(str(file), table.schema) as writer:
            writer.write_table(table)
    else:
        text = {"a.jsonl": LINES, "a.json": json.dumps(ROWS)}.get(name)
        file.write_text(text or "prompt,response\n" + "".join(f"{row['prompt']},{row['response']}\n" for row in ROWS))
    monkeypatch.setattr(readers, "_ROWS_PER_BATCH", 2)
    everything = rows_of(file)
    (part,) = plan(str(file))
    for chosen in ([0], [1, 2, 4], [3], []):
        assert list(read(replace(part, chosen=np.array(chosen, dtype=np.int64)))) == [everything[at] for at in chosen]


def test_lines_that_are_not_chosen_are_not_decoded(tmp_path, monkeypatch):
    (tmp_path / "a.jsonl").write_text(LINES)
    (part,) = plan(str(tmp_path / "a.jsonl"))
    decoded = []
    monkeypatch.setattr(readers, "_object", lambda line: decoded.append(line) or {})
    list(read(replace(part, chosen=np.array([1, 3]))))
    assert [json.loads(line) for line in decoded] == [ROWS[1], ROWS[3]]
