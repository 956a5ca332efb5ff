from __future__ import annotations

from raylora.cli import main


def test_the_page_is_served_until_ctrl_c(workplace, monkeypatch, capsys) -> None:
    from raylora.reports.page.serve import PageServer

    def served(server: PageServer) -> None:
        assert b"<!doctype html>" in server.page()
        raise KeyboardInterrupt

    monkeypatch.setattr(PageServer, "serve_forever", served)
    assert main(["watch", str(workplace / "runs" / "sums"), "--port", "0"]) == 0
    assert "http://localhost:" in capsys.readouterr().err


def test_folder_without_a_run_is_one_line(tmp_path, mistake) -> None:
    assert "holds no spec.yaml" in mistake("watch", tmp_path)
