from __future__ import annotations

import threading
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from raylora.errors import UserError
from raylora.reports.page.serve import PageServer
from trainables.journal import Journal


@pytest.fixture
def server(make_run) -> Iterator[PageServer]:
    with PageServer([make_run("served", trials=8, finished=False)], every_s=0) as served:
        thread = threading.Thread(target=served.serve_forever, daemon=True)
        thread.start()
        yield served
        served.shutdown()
        thread.join()


def get(server: PageServer, path: str = "", host: str | None = None) -> str:
    request = urllib.request.Request(server.url + path, headers={} if host is None else {"Host": host})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read().decode()


def test_the_page_knows_its_version(server) -> None:
    page = get(server)
    assert "of 8 trials have ended" in page and f'data-live="{get(server, "state")}"' in page


def test_the_page_is_new_once_the_run_has_gone_on(server) -> None:
    before = get(server)
    server._fresh_until = 0.0
    state = get(server, "state")
    journal = Journal(server.runs[0])
    key = next(iter(set(journal.started()) - set(journal.concluded())))
    journal.fail(key, journal.started()[key].config, "the disk is full")
    assert get(server, "state") != state
    assert "the disk is full" not in before and "the disk is full" in get(server)


def test_only_this_machine_is_answered(server) -> None:
    assert server.server_address[0] == "127.0.0.1"
    with pytest.raises(urllib.error.HTTPError, match="403"):
        get(server, host="elsewhere.example:80")


def test_other_files_are_not_served(server) -> None:
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(server, "spec.yaml")


def test_a_taken_port_is_one_line(server) -> None:
    with pytest.raises(UserError, match="--port"):
        PageServer(server.runs, server.server_address[1])
