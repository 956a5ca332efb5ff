"""Learning rates from the loss's curvature: measured, and shown."""
