from __future__ import annotations

from trainables.stops import ask_to_stop, asked_to_stop


def test_a_trial_is_stopped_by_its_key_however_often_it_is_asked(tmp_path) -> None:
    assert not asked_to_stop(tmp_path, "a")
    ask_to_stop(tmp_path, "a")
    ask_to_stop(tmp_path, "a")
    assert asked_to_stop(tmp_path, "a") and not asked_to_stop(tmp_path, "b")
