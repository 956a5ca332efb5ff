"""Which trial gets the next samples: one that is paused, or a new one?

| symbol | meaning                                                                    | shape |
|--------|----------------------------------------------------------------------------|-------|
| mean   | forecasts of final y, smaller is better (`curves.Forecast`)                | (k,)  |
| sd     | their standard deviations                                                  | (k,)  |
| rest   | samples to a trial's end                                                   | (k,)  |
| step   | samples to its next report                                                 | (k,)  |
| best   | the smallest mean of the trials that have begun                            | ()    |

What a trial promises is its expected improvement over `best` by the samples that it takes to have it, EI / rest: what
is nearly done is cheap to finish, and a new trial has to promise more. It is given `step` of them, then all is asked
again.

What counts in the end is a trial that was trained whole. So nothing begins or goes on that could not come to its end
within what is left, and nothing but the most promising trial itself may use the samples that it needs for that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .acquisition import log_expected_improvement


@dataclass(frozen=True)
class Option:
    """A trial that could have the next samples.

    Args:
        mean, sd: what is believed of its final y.
        rest, step: samples to its end, and to its next report; 0 for one that is whole.
        free: whether it waits for them; not where it runs or is over.
        new: whether it has not begun.
    """

    mean: float
    sd: float
    rest: int
    step: int
    free: bool = True
    new: bool = False


def choose(options: Sequence[Option], left: int) -> int | None:
    """The place of the trial to spend samples on; None where none should have any.

    Args:
        options: all trials that have begun and did not fail, and a new one where there is one.
        left: samples of the search that are neither spent nor promised to trials that run.
    """
    begun = [at for at, option in enumerate(options) if not option.new]
    best = min((options[at].mean for at in begun), default=np.inf)
    favourite = min(begun, key=lambda at: options[at].mean, default=None)
    kept = 0 if favourite is None else options[favourite].rest
    found: int | None = None
    merit = -np.inf
    for at, option in enumerate(options):
        if not option.free or not option.step or option.rest > left:
            continue
        if at != favourite and option.step + kept > left:
            continue
        if not begun:
            return at
        value = float(log_expected_improvement(np.array([-option.mean]), np.array([option.sd**2]), -best)[0])
        value -= float(np.log(option.rest))
        if found is None or value > merit:
            found, merit = at, value
    return found
