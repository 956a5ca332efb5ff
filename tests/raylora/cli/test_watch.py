from __future__ import annotations

import json

from raylora.cli import main


def test_the_page_is_served_until_ctrl_c(workplace, monkeypatch, capsys) -> None:
    from raylora.reports.page.serve import PageServer

    def served(server: PageServer) -> None:
        assert b"<!doctype html>" in server.page()
        raise KeyboardInterrupt

    monkeypatch.setattr(PageServer, "serve_forever", served)
    run = str(workplace / "runs" / "sums")
    assert main(["watch", run, "--port", "0", "--json"]) == 0
    told = capsys.readouterr()
    answer = json.loads(told.out)
    assert answer["runs"] == [run] and answer["url"].startswith("http://localhost:") and answer["url"] in told.err


def test_folder_without_a_run_is_one_line(tmp_path, mistake) -> None:
    assert "holds no spec.yaml" in mistake("watch", tmp_path)
