"""Searches whose processes are killed at random moments, or whose disk fills up, resumed and checked."""
