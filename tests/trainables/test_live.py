from __future__ import annotations

import time

from trainables.live import Beacon, read_live

KNOBS = {"rank": 4}


def test_who_watches_sees_where_a_trial_stands(tmp_path) -> None:
    beacon = Beacon(tmp_path, "host-0")
    beacon.begin()
    time.sleep(0.01)
    beacon.show("training", 8, 32, loss=1.5, key="k", knobs=KNOBS)
    told = read_live(tmp_path)["host-0"]
    assert (told["samples"], told["of"], told["loss"], told["knobs"]) == (8, 32, 1.5, KNOBS)
    assert told["left_s"] is not None and told["left_s"] > 0


def test_the_time_left_counts_from_where_a_trial_went_on(tmp_path) -> None:
    beacon = Beacon(tmp_path, "host-0")
    beacon.begin(samples=16)
    beacon.show("training", 16, 32, loss=None, key="k", knobs=KNOBS)
    assert read_live(tmp_path)["host-0"]["left_s"] is None


def test_a_file_is_written_once_a_second_or_when_the_phase_changes(tmp_path) -> None:
    beacon = Beacon(tmp_path, "host-0")
    beacon.begin()
    for samples in (1, 2, 3):
        beacon.show("training", samples, 4, loss=None, key="k", knobs=KNOBS)
    assert read_live(tmp_path)["host-0"]["samples"] == 1
    beacon.show("scoring", 4, 4, loss=None, key="k", knobs=KNOBS)
    assert read_live(tmp_path)["host-0"]["phase"] == "scoring"


def test_nothing_is_there_once_it_has_ended(tmp_path) -> None:
    beacon = Beacon(tmp_path, "host-0")
    beacon.begin()
    beacon.show("training", 1, 4, loss=None, key="k", knobs=KNOBS)
    beacon.end()
    assert read_live(tmp_path) == {}


def test_without_a_name_nothing_is_written(tmp_path) -> None:
    beacon = Beacon(tmp_path, "")
    beacon.begin()
    beacon.show("training", 1, 4, loss=None, key="k", knobs=KNOBS)
    beacon.end()
    assert not list(tmp_path.iterdir())


def test_a_torn_file_is_passed_over(tmp_path) -> None:
    (tmp_path / "live").mkdir()
    (tmp_path / "live" / "host-0.json").write_text('{"name": ')
    assert read_live(tmp_path) == {}
