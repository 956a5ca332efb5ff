"""Rows: where they come from, how they are split, and their tokens."""
