"""Runs in an object store: in a folder that pyarrow takes for one, and in a real server of S3's protocol."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from pathlib import Path

import pytest

from raylora.errors import UserError
from raylora.run.folder import RUN_MARK, read_run
from raylora.run.requests import end_search
from raylora.run.state import list_statuses, run_state
from raylora.run.stored import (
    HOLDER,
    check_store,
    held_in_store,
    machine,
    new_stored,
    publish,
    working_copy,
)
from trainables.home import stored_folder
from trainables.journal import Journal
from trainables.store import store_at, store_of


@pytest.fixture
def uri(tmp_path, monkeypatch) -> str:
    monkeypatch.setenv("RAYLORA_HOME", str(tmp_path / "home"))
    return f"file://{tmp_path}/bucket/runs/run"


@pytest.fixture
def run(uri, write_spec) -> Path:
    """The working folder of a run that has begun."""
    folder = new_stored(uri, "run")
    (folder / RUN_MARK).write_text("raylora\n")
    shutil.copy(write_spec(), folder / "spec.yaml")
    publish(folder)
    return folder


def test_a_place_that_has_a_run_is_in_use(run, uri) -> None:
    with pytest.raises(UserError, match=r"name: .* is in use"):
        new_stored(uri, "run")


def test_another_machine_reads_the_run_and_its_journal(run, uri, tmp_path, monkeypatch) -> None:
    Journal(run).append("start", "k", config={"rank": 2})
    monkeypatch.setenv("RAYLORA_HOME", str(tmp_path / "other"))
    folder, spec = read_run(uri)
    assert folder != run and spec.name == "run" and list(Journal(folder).started()) == ["k"]
    assert [status["run_dir"] for status in list_statuses(uri.rpartition("/")[0])] == [uri]


def test_files_of_an_earlier_run_at_the_address_are_forgotten(run, uri) -> None:
    (run / "searcher.pkl").write_bytes(b"of the one before")
    (run / RUN_MARK).write_text("raylora, another\n")
    assert not (working_copy(uri, RUN_MARK) / "searcher.pkl").exists()


def test_the_searchers_state_stays_on_its_machine(run, uri) -> None:
    (run / "searcher.pkl").write_bytes(b"")
    (run / "plan.json").write_text("{}")
    publish(run)
    assert {"plan.json", "spec.yaml"} <= set(store_at(uri).names()) and "searcher.pkl" not in store_at(uri).names()
    assert (working_copy(uri, RUN_MARK) / "searcher.pkl").exists()


def test_no_run_at_an_address_is_a_line(uri) -> None:
    with pytest.raises(UserError, match=r"RUN_DIR: .* holds no run"):
        read_run(uri)


@pytest.mark.parametrize("age", [0.0, 1000.0])
def test_a_run_is_held_as_long_as_another_machine_says_so(run, age) -> None:
    told = {"machine": "another", "pid": 7, "time": time.time() - age}
    store_of(run).put(HOLDER, json.dumps(told).encode())
    assert run_state(run) == ("running" if age == 0.0 else "interrupted")
    refused = contextlib.nullcontext() if age else pytest.raises(UserError, match="process 7 on another runs")
    with refused, held_in_store(run):
        pass


def test_a_process_of_this_machine_that_is_gone_holds_nothing(run) -> None:
    store_of(run).put(HOLDER, json.dumps({"machine": machine(), "pid": 2**22 + 1, "time": time.time()}).encode())
    with held_in_store(run):
        assert json.loads(store_of(run).get(HOLDER))["pid"] == os.getpid()
    assert store_of(run).get(HOLDER) is None


def test_what_is_asked_of_a_run_on_another_machine_is_refused(run) -> None:
    store_of(run).put(HOLDER, json.dumps({"machine": "another", "pid": 7, "time": time.time()}).encode())
    with pytest.raises(UserError, match=r"RUN_DIR: .* is run on another"):
        end_search(run)


@pytest.mark.parametrize("address", ["s3://key:secret@bucket/runs", "s3://bucket/runs?endpoint_override=here"])
def test_credentials_and_options_in_an_address_are_refused(address) -> None:
    with pytest.raises(UserError, match="storage_path: credentials and options"):
        check_store(address)


def test_a_kind_of_store_that_nobody_knows_is_refused() -> None:
    with pytest.raises(UserError, match="storage_path = 'nowhere://b'"):
        check_store("nowhere://b")


# ---- a real server -----------------------------------------------------------------------------------------


@pytest.fixture
def s3(tmp_path, monkeypatch):
    """A server of S3's protocol on this machine with a bucket `bucket`, which the environment names."""
    pytest.importorskip("moto", reason="moto is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    there = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
        "RAYLORA_HOME": str(tmp_path / "home"),
    }
    for name, value in there.items():
        monkeypatch.setenv(name, value)
    make = urllib.request.Request(f"{there['AWS_ENDPOINT_URL']}/bucket", method="PUT")
    try:
        for _ in range(300):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(make)
                break
            time.sleep(0.1)
        yield "s3://bucket/runs"
    finally:
        server.kill()
        server.wait()


@pytest.mark.real
def test_a_driver_that_is_killed_loses_nothing_in_s3_and_another_machine_goes_on(
    s3, write_spec, start_raylora, tmp_path, monkeypatch
) -> None:
    uri, trials = f"{s3}/run", 4
    file = write_spec(storage_path=s3, search__trials=trials, train__checkpoint_every_s=0.2, train__epochs=3)
    process = start_raylora("tune", file)
    journal: list[str] = []
    while "finish" not in journal and process.poll() is None:
        time.sleep(0.1)
        journal = [name.split("-")[1] for name in store_at(uri).names("journal")]
    assert process.poll() is None, process.communicate()[0]
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    monkeypatch.setenv("RAYLORA_HOME", str(tmp_path / "other"))
    process = start_raylora("resume", uri, "--json")
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    folder, _ = read_run(uri)
    rows = Journal(folder).rows()
    for event in ("start", "finish"):
        assert sorted(Counter(row["key"] for row in rows if row["event"] == event).values()) == [1] * trials
    first = next(row["key"] for row in rows if row["event"] == "finish")
    begun = [row["event"] for row in rows if row["key"] == first]
    assert "continue" not in begun[begun.index("finish") :]
    names = store_at(uri).names()
    assert "adapter/adapter_config.json" in names and "report.html" in names
    assert not [name for name in names if name.startswith(("checkpoints/", HOLDER)) or name.endswith("searcher.pkl")]
    assert folder == stored_folder(uri) and run_state(folder) == "finished"
