"""`trials.jsonl`: the record that decides what has happened in a run.

One JSON object a line, appended under a file lock and fsynced before the writer goes on. Events:

- `start`: a configuration begins training (`key`, `config`, `trial_id`, `host`).
- `continue`: training that something interrupted goes on, from optimizer step `from_step`.
- `finish`: the trial is over; carries its metrics. `stopped: true` when a scheduler ended it early,
  `diverged: true` when its loss became non-finite.
- `error`: the trial failed with `message`; it is not tried again.

A trial is finished once its `finish` line is on disk. Tune's own snapshots are periodic and may be older.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CONCLUDED = ("finish", "error")


def canonical(value: Any) -> Any:
    """One spelling for equal values: 8.0 becomes 8, tuples become lists, numpy scalars become numbers."""
    if hasattr(value, "item") and not isinstance(value, (str, bytes)):
        value = value.item()
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, Mapping):
        return {str(k): canonical(v) for k, v in sorted(value.items())}
    if isinstance(value, (list, tuple)):
        return [canonical(v) for v in value]
    return value


def trial_key(config: Mapping[str, Any]) -> str:
    """Stable 16-digit id of a configuration, independent of key order and of int or float spelling."""
    text = json.dumps(canonical(config), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _plain(value: Any) -> Any:
    """JSON has no NaN: non-finite numbers become None."""
    value = canonical(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return value


class Journal:
    """Append-only journal; many processes may append to one file."""

    def __init__(self, run_dir: str | Path) -> None:
        self.path = Path(run_dir) / "trials.jsonl"

    def append(self, event: str, key: str, **fields: Any) -> dict[str, Any]:
        """Write one line and return it; when this returns, the line is on disk."""
        row = {"event": event, "key": key, "time": time.time(), **fields}
        line = (json.dumps(_plain(row), separators=(",", ":")) + "\n").encode()
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            size = os.lseek(descriptor, 0, os.SEEK_END)
            # A writer that was killed mid-line leaves a torn tail; start on a fresh line after it.
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                line = b"\n" + line
            os.write(descriptor, line)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return row

    def rows(self) -> list[dict[str, Any]]:
        """All whole lines, oldest first; a torn line is passed over."""
        if not self.path.exists():
            return []
        rows = []
        for line in self.path.read_bytes().splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict) and "event" in row:
                rows.append(row)
        return rows

    def concluded(self) -> dict[str, dict[str, Any]]:
        """Key -> its first `finish` or `error` line."""
        found: dict[str, dict[str, Any]] = {}
        for row in self.rows():
            if row["event"] in CONCLUDED:
                found.setdefault(row["key"], row)
        return found

    def started(self) -> dict[str, dict[str, Any]]:
        """Key -> its `start` line, in order of start."""
        found: dict[str, dict[str, Any]] = {}
        for row in self.rows():
            if row["event"] == "start":
                found.setdefault(row["key"], row)
        return found


def journal_metrics(row: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics of a journal's concluding line as a trial reports them.

    Raises:
        RuntimeError: The line records an error.
    """
    if row["event"] == "error":
        raise RuntimeError(f"this configuration failed before: {row['message']}")
    hidden = ("event", "key", "time", "config")
    return {**{k: v for k, v in row.items() if k not in hidden}, "replayed": True}
