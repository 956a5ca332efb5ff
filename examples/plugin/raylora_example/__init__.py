"""One of each kind for raylora."""
