"""Searches whose driver, hosts and folder are disturbed ten times: the short form of `raylora bench chaos`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.real
def test_ten_kills_lose_nothing_and_repeat_nothing(tmp_path) -> None:
    """Of one search, by kinds that need nothing installed; its answer is that of the search that was left alone."""
    folder = tmp_path / "chaos"
    command = [sys.executable, "-m", "raylora", "bench", "chaos", "--kills", "10", "--kinds", "host,driver,read-only"]
    command += ["--samples", "600", "--folder", str(folder), "--json", str(tmp_path / "kills.json")]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment["PYTHONPATH"] = str(ROOT)
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout
    found = json.loads((tmp_path / "kills.json").read_text())
    assert (found["kills"], found["lost"], found["repeated"], found["broken"]) == (10, 0, 0, [])
    assert {"driver", "host"} <= set(found["kinds"])
    assert len((folder / "kills.jsonl").read_text().splitlines()) == 10
