"""A submitted job gets the right command, loses no results, and its end is the exit status."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from clusters.errors import ClusterError
from clusters.submit import Submitted, entrypoint, submit


class Client:
    """Stands in for Ray's JobSubmissionClient."""

    def __init__(self, *statuses: str) -> None:
        self.statuses = list(statuses)
        self.submitted: dict[str, Any] = {}

    def submit_job(self, **job: Any) -> str:
        self.submitted = job
        return "job-1"

    async def tail_job_logs(self, job: str) -> AsyncIterator[str]:
        for piece in ("one\n", "two\n"):
            yield piece

    def get_job_status(self, job: str) -> str:
        return self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]

    def get_job_info(self, job: str) -> Any:
        return SimpleNamespace(message="exit code 2")


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "work" / "specs" / "a spec.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("model: m\nstorage_path: /shared/runs\n")
    return path


def test_job_runs_tune_on_the_spec_as_the_cluster_sees_it(spec: Path, tmp_path: Path) -> None:
    client, written = Client("SUCCEEDED"), []
    done = submit(
        spec,
        ["space.rank=[4, 8]"],
        address="http://head:8265",
        working_dir=tmp_path / "work",
        env_vars={"HF_TOKEN": "x"},
        write=written.append,
        client=client,
    )
    assert done == Submitted("job-1", "http://head:8265", "succeeded")
    command = "python -m raylora tune 'specs/a spec.yaml' 'space.rank=[4, 8]'"
    assert client.submitted["entrypoint"] == command == entrypoint("specs/a spec.yaml", ["space.rank=[4, 8]"])
    assert client.submitted["runtime_env"] == {
        "working_dir": str((tmp_path / "work").resolve()),
        "env_vars": {"HF_TOKEN": "x"},
    }
    assert "".join(written).endswith("one\ntwo\n")
    assert sorted(p.name for p in (tmp_path / "work").rglob("*")) == ["a spec.yaml", "specs"]


def test_failed_job_is_a_nonzero_status_with_its_reason(spec: Path, tmp_path: Path) -> None:
    written: list[str] = []
    client = Client("RUNNING", "FAILED")
    done = submit(spec, address="u", working_dir=tmp_path, write=written.append, client=client)
    assert done.state == "failed"
    assert written[-1] == "job-1 failed: exit code 2\n"


def test_job_is_left_alone_without_follow(spec: Path, tmp_path: Path) -> None:
    done = submit(spec, address="u", working_dir=tmp_path, follow=False, write=len, client=Client("PENDING"))
    assert done.state == "pending"


def test_storage_that_the_job_would_lose_is_refused(spec: Path, tmp_path: Path) -> None:
    client = Client("SUCCEEDED")
    with pytest.raises(ValueError, match="storage_path = 'runs'"):
        submit(spec, ["storage_path=runs"], address="u", working_dir=tmp_path, client=client)
    spec.write_text("model: m\n")
    with pytest.raises(ValueError, match="storage_path = 'runs'"):
        submit(spec, address="u", working_dir=tmp_path, client=client)
    assert client.submitted == {}
    done = submit(spec, ["storage_path=s3://b/r"], address="u", working_dir=tmp_path, write=len, client=client)
    assert done.state == "succeeded"


@pytest.mark.parametrize(("text", "change"), [("seed: 2001-99-99", ""), ("model: m", "storage_path=[")])
def test_text_that_yaml_stumbles_over_is_one_line(spec: Path, tmp_path: Path, text: str, change: str) -> None:
    spec.write_text(text)
    with pytest.raises(ClusterError) as caught:
        submit(spec, [change], address="u", working_dir=tmp_path, client=Client("SUCCEEDED"))
    assert len(str(caught.value).splitlines()) == 1


def test_spec_outside_the_working_directory_is_refused(spec: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with pytest.raises(ValueError, match="outside the working directory"):
        submit(spec, address="u", working_dir=tmp_path / "other", client=Client("SUCCEEDED"))
    with pytest.raises(ValueError, match="no such file"):
        submit(tmp_path / "none.yaml", address="u", working_dir=tmp_path, client=Client("SUCCEEDED"))


def test_address_where_nobody_answers_is_one_line(spec: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no Ray cluster answers") as caught:
        submit(spec, address="http://127.0.0.1:9", working_dir=tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("status", [401, 403])
def test_token_that_the_cluster_does_not_take_is_one_line(spec: Path, tmp_path: Path, status: int) -> None:
    class Refuses(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(status)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Refuses) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        with pytest.raises(ValueError, match="does not take this token") as caught:
            submit(spec, address=address, working_dir=tmp_path)
        server.shutdown()
    assert "RAY_AUTH_TOKEN" in str(caught.value) and "\n" not in str(caught.value)


def test_the_command_tells_a_mistake_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    from raylora.cli import main

    assert main(["submit", "examples/quickstart.yaml", "--address", "http://localhost:1"]) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1 and told[0].startswith("raylora: storage_path = 'runs': lost with")
