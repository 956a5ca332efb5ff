"""The learned prior, fitted to recorded runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from raylora.data.grids import bundled, load_grid
from raylora.errors import UserError

if TYPE_CHECKING:
    from searchers.surrogate.learned import Learned


def fit_prior(without: Sequence[str] = (), grids: Sequence[str] | None = None) -> Learned:
    """The prior that recorded runs leave.

    Args:
        without: what to leave out: names of tables, families of models, or origins. Of an origin, what its publication
            says of variants and exponents is left out, too.
        grids: what to fit to; None for all grids that come with the package.

    Raises:
        UserError: something to leave out that is none of them.
    """
    from searchers.surrogate.fitting import Table, fit
    from searchers.surrogate.learned import Context
    from trainables.variants import scale_rules

    loaded = [load_grid(name) for name in (bundled() if grids is None else grids)]
    known = sorted({name for grid in loaded for name in (grid.name, grid.origin, grid.family) if name})
    for name in without:
        if name not in known:
            raise UserError.at("--without", f"{name!r}; allowed: {', '.join(known)}", value=name, allowed=known)
    kept = [grid for grid in loaded if not {grid.name, grid.origin, grid.family} & set(without)]
    tables = [
        Table(
            grid.name,
            grid.origin,
            Context(grid.samples, grid.parameters, grid.family),
            [grid.space.decode(index) for index in grid.values],
            list(grid.values.values()),
        )
        for grid in kept
    ]
    return fit(tables, scale_rules(), unread=without)
