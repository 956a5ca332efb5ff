"""Run as files, in the environment that has llama.cpp's packages: nothing here imports raylora."""
