from __future__ import annotations

import struct
import time
from pathlib import Path

import pytest

from raylora.run.trackers.wandb import Wandb

pytestmark = pytest.mark.real
pytest.importorskip("wandb")


def records(file: Path) -> list:
    """What is in an offline run's file: a log of LevelDB's form, in blocks of 32 KiB, behind a header of 7 bytes."""
    from wandb.proto import wandb_internal_pb2

    data, at, found, part = file.read_bytes(), 7, [], b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:  # no room for a record's head: the rest of the block is empty
            at += 32768 - at % 32768
            continue
        _, size, kind = struct.unpack_from("<IHB", data, at)
        part += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last piece
            record = wandb_internal_pb2.Record()
            record.ParseFromString(part)
            found.append(record)
            part = b""
    return found


def written(file: Path) -> list:
    """The records of a run that has ended: the client's own process writes the last of them a moment later."""
    for _ in range(300):
        found = records(file)
        if any(record.HasField("exit") for record in found):
            return found
        time.sleep(0.1)
    raise AssertionError(f"{file} does not end")


def test_a_group_with_a_run_per_trial_is_read_back_from_its_files(tell, folder) -> None:
    tell(lambda: Wandb(mode="offline"))
    found = [written(file) for file in sorted((folder / "wandb").glob("offline-run-*/run-*.wandb"))]
    runs = [next(record.run for record in one if record.HasField("run")) for one in found]
    names = {run.display_name for run in runs}
    assert names == {"sums", "trial-00aa", "trial-00bb"} and {run.run_group for run in runs} == {"sums"}
    trial = found[[run.display_name for run in runs].index("trial-00aa")]
    history = [
        {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
        for record in trial
        if record.HasField("history")
    ]
    assert [row["accuracy"] for row in history] == ["0.25", "0.5"]
    assert len({run.run_id for run in runs if run.display_name == "sums"}) == 1, "a resumed run goes on as itself"
