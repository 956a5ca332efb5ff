"""`raylora bench fit-prior`."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING

from raylora.cli._output import add_json, answer, print_table

if TYPE_CHECKING:
    from searchers.surrogate.learned import Learned

HELP = "what recorded runs say of the best learning rate, as the prior that searches start from"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("grids", nargs="*", metavar="GRID.csv", help="recorded runs (default: all bundled grids)")
    parser.add_argument(
        "--without", action="append", default=[], metavar="SOURCE", help="leave out a table, model family or origin"
    )
    parser.add_argument("--to", metavar="FILE", help="write the prior there, as the package's own prior.json")
    add_json(parser)


def run(options: argparse.Namespace) -> None:
    from raylora.bench.prior import fit_prior
    from raylora.spec.paths import writable_file

    to = writable_file(options.to, "--to") if options.to else None
    learned = fit_prior(options.without, options.grids or None)
    if to is not None:
        learned.save(to)
    answer(options, asdict(learned), lambda: _show(learned))


def _show(learned: Learned) -> None:
    rows = [
        [name, f"{mean:.2f}", f"{learned.covariance[at][at] ** 0.5:.2f}"]
        for at, (name, mean) in enumerate(zip(learned.names, learned.mean, strict=True))
    ]
    rows += [[f"family {name}", f"{mean:.2f}", f"{spread:.2f}"] for name, (mean, spread) in learned.families.items()]
    print_table(["of log10 of the best rate", "mean", "deviation"], rows)
    print(
        f"{len(learned.tables)} tables; families scatter by {learned.between_families:g} decades, tables by "
        f"{learned.between_tables:g}; a doubling of the rank adds {learned.rank_gain:.3f}, of the batch "
        f"{learned.batch_gain:.3f} of what the right rate does"
    )
