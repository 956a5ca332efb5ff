"""Hypernetworks that generate the factors of adapters: the networks, the factors' rows as tokens, rank allocation.

Knows nothing of models and layers; `trainables.variants.core.hyper` puts it on them.
"""
