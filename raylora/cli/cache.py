"""`raylora cache`."""

from __future__ import annotations

import argparse
import time

from raylora.cli._output import add_json, answer, print_table

HELP = "list the tokenised rows kept from run to run, or delete them"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "action", nargs="?", choices=("list", "clean"), default="list", help="clean deletes what no run uses"
    )
    add_json(parser)


def run(options: argparse.Namespace) -> None:
    from raylora.data import store

    if options.action == "clean":
        before = sum(entry.size for entry in store.entries())
        gone, stayed = store.clean()
        freed = before - sum(entry.size for entry in store.entries())
        figures = {"deleted": gone, "in_use": stayed, "freed_bytes": freed}
        told = f"{gone} entries deleted, {freed / 1e9:.2f} GB freed" + (f"; {stayed} in use stay" if stayed else "")
        answer(options, figures, lambda: print(told))
        return
    listed = [
        {
            "key": entry.folder.name,
            "label": entry.about.get("label", ""),
            "rows": entry.about.get("rows", 0),
            "bytes": entry.size,
            "used": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.used)),
        }
        for entry in store.entries()
    ]
    total, limit = sum(int(row["bytes"]) for row in listed), store.cache_limit()
    rows = [
        [
            str(row["key"])[:12],
            str(row["label"]),
            f"{row['rows']:,}",
            f"{int(row['bytes']) / 1e6:,.1f}",
            str(row["used"]),
        ]
        for row in listed
    ]

    def show() -> None:
        print_table(["entry", "what", "rows", "MB", "last used"], rows)
        print(f"{total / 1e9:.2f} of {limit / 1e9:g} GB in {store.cache_root()}")

    answer(options, {"folder": str(store.cache_root()), "limit_bytes": limit, "bytes": total, "entries": listed}, show)
