"""A run: checks before it, the search, the final stage, its folder, what is taken from it afterwards."""
