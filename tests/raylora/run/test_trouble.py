"""What fails beneath a run: a line on the screen, the traceback in its log."""

from __future__ import annotations

import logging

import pytest
from ray.exceptions import ActorDiedError, RayTaskError

from raylora.errors import RunFailed, UserError
from raylora.run.trouble import logged_apart, told_in_one_line, why


def test_what_fails_is_one_line_that_says_how_to_go_on_and_a_traceback_in_the_log(tmp_path) -> None:
    with pytest.raises(RunFailed, match=r"^the run stopped: OSError: .*No space left.*errors.log has.*`raylora resume"):  # noqa: SIM117
        with told_in_one_line(tmp_path):
            raise OSError(28, "No space left\non device")
    assert "Traceback" in (tmp_path / "errors.log").read_text()


def test_a_mistake_stays_the_users_also_where_a_remote_call_found_it(tmp_path) -> None:
    mistake = UserError("task.path: no such file")
    remote = RayTaskError("f", "Traceback ...", mistake).as_instanceof_cause()
    for error in (mistake, remote):
        with pytest.raises(UserError, match=r"^task\.path: no such file$"), told_in_one_line(tmp_path):
            raise error
    assert not (tmp_path / "errors.log").exists()


def test_an_error_of_ray_is_told_by_its_cause() -> None:
    assert why(RayTaskError("f", "Traceback ...", ValueError("two\nlines"))) == "ValueError: two lines"
    born_dead = ActorDiedError(RayTaskError("f", "Traceback ...\n  File\nNoRoom: no room", MemoryError("no room")))
    assert why(born_dead) == "NoRoom: no room"


def test_an_error_whose_message_is_a_traceback_is_told_by_the_line_that_it_ends_with() -> None:
    told = 'Traceback (most recent call last):\n  File "a.py", line 1\nPermissionError: [Errno 1] not permitted: "b"\n'
    assert why(RuntimeError(told)) == 'PermissionError: [Errno 1] not permitted: "b"'


def test_no_log_is_promised_where_none_can_be_written(tmp_path) -> None:
    gone = tmp_path / "gone"
    with pytest.raises(RunFailed) as failed, told_in_one_line(gone):
        raise OSError(30, "Read-only file system")
    told = f"the run stopped: OSError: [Errno 30] Read-only file system; `raylora resume {gone}` goes on"
    assert str(failed.value) == told


def test_what_tune_logs_goes_to_the_log(tmp_path, capsys) -> None:
    with logged_apart(tmp_path):
        logging.getLogger("ray.tune.execution").error("Trial task failed\nTraceback")
    assert "Trial task failed" in (tmp_path / "errors.log").read_text()
    assert "Trial task failed" not in capsys.readouterr().err
