"""From reported values to what a Gaussian process can bear.

| symbol | meaning                                                        | shape |
|--------|----------------------------------------------------------------|-------|
| v      | reported values, larger is better                              | (n,)  |
| e      | their standard errors, 0 where none was reported               | (n,)  |
| w      | warped values: the bad half drawn in                           | (n,)  |
| y      | standardised targets, (w - mean(w)) / std(w)                   | (n,)  |
| noise  | variances of y                                                 | (n,)  |

A diverged run is as far below a poor one as the poor one is below the best, and says no more than "not here". Below the
median the warp is logarithmic, in units of the good half's own spread g: w = median - g log(1 + (median - v) / g). It
leaves the good half as it is, keeps the order, and is smooth where the halves meet.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Warp:
    """The warp with its median and the good half's spread g; g = 0 leaves values as they are."""

    median: float = 0.0
    spread: float = 0.0

    @classmethod
    def of(cls, values: np.ndarray) -> Warp:
        """From reported values `(n,)`. Fewer than three, or a good half without spread, are left as they are."""
        if len(values) < 3:
            return cls()
        median = float(np.median(values))
        spread = float(np.sqrt(np.mean((values[values >= median] - median) ** 2)))
        return cls(median, spread) if spread > 1e-12 * max(1.0, abs(median)) else cls()

    def __call__(self, values: np.ndarray) -> np.ndarray:
        if not self.spread:
            return values
        gap = np.maximum(self.median - values, 0.0) / self.spread
        return np.where(values < self.median, self.median - self.spread * np.log1p(gap), values)

    def slope(self, values: np.ndarray) -> np.ndarray:
        """dw/dv."""
        if not self.spread:
            return np.ones_like(values)
        return 1.0 / (1.0 + np.maximum(self.median - values, 0.0) / self.spread)

    def inverse(self, warped: np.ndarray) -> np.ndarray:
        """v of w."""
        if not self.spread:
            return warped
        gap = np.expm1(np.maximum(self.median - warped, 0.0) / self.spread)
        return np.where(warped < self.median, self.median - self.spread * gap, warped)


@dataclass(frozen=True)
class Targets:
    """Standardised targets `y` and their noise variances, both `(n,)`, and the way back."""

    y: np.ndarray
    noise: np.ndarray
    centre: float
    scale: float
    warp: Warp

    def reported(self, y: np.ndarray) -> np.ndarray:
        """Standardised values in the units of the reports."""
        return self.warp.inverse(np.asarray(y, dtype=np.float64) * self.scale + self.centre)


def make_targets(values: np.ndarray, errors: np.ndarray, warp: bool = True) -> Targets:
    """Warps and standardises. Equal values (or one) carry no scale: they become zeros.

    Args:
        values, errors: `(n,)`, n >= 1, finite; errors >= 0.
    """
    values = np.asarray(values, dtype=np.float64)
    errors = np.asarray(errors, dtype=np.float64)
    drawn_in = Warp.of(values) if warp else Warp()
    warped = drawn_in(values)
    centre, scale = float(warped.mean()), float(warped.std())
    if scale <= 1e-12 * max(1.0, abs(centre)):
        # An error bar still says what a difference would mean.
        scale = float(errors.max()) or 1.0
    noise = np.square(errors * drawn_in.slope(values) / scale)
    return Targets((warped - centre) / scale, noise, centre, scale, drawn_in)
