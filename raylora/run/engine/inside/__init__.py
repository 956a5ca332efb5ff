"""Run as files, in the environment that has vLLM: nothing here imports raylora."""
