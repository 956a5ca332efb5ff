"""Machinery of the metrics: reading text, likelihoods, errors."""
