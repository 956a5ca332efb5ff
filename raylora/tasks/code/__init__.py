"""Code tasks: the published prompts, the program in an answer, and the tests that judge it in the sandbox."""
