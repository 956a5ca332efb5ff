from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from raylora.run.trackers.tensorboard import Tensorboard


def scalars(folder: Path) -> Iterator[tuple[str, int, float]]:
    """Tag, step and value of every scalar in a folder's event files: records of a length, its sum, data, its sum."""
    from tensorboardX.proto.event_pb2 import Event

    for file in sorted(folder.glob("events.*")):
        data, at = file.read_bytes(), 0
        while at < len(data):
            (size,) = struct.unpack_from("<Q", data, at)
            event = Event.FromString(data[at + 12 : at + 12 + size])
            at += 12 + size + 4
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    yield value.tag, event.step, value.simple_value


def test_a_trial_is_a_run_with_its_curve_over_the_samples(tell, folder) -> None:
    tell(Tensorboard)
    found = list(scalars(folder / "tensorboard" / "trial-00aa"))
    assert [(step, value) for tag, step, value in found if tag == "accuracy"] == [(16, 0.25), (32, 0.5)]
    assert ("final/accuracy", 0, 0.5) in found


def test_the_scores_are_in_a_run_of_the_search(tell, folder) -> None:
    tell(Tensorboard)
    found = {tag: round(value, 4) for tag, _, value in scalars(folder / "tensorboard" / "search")}
    assert found["best/test"] == 0.4 and found["best/test_se"] == 0.1 and found["base/test"] == 0.1


def test_all_runs_may_lie_in_one_folder(tell, folder, tmp_path) -> None:
    tell(lambda: Tensorboard(folder=str(tmp_path / "board")))
    assert (tmp_path / "board" / "sums" / "trial-00aa").is_dir() and not (folder / "tensorboard").exists()
