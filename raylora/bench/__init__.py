"""`raylora bench ...`: recorded grids and speed, always as ratios within one run."""
