# Everything below needs Python 3.11 or newer with venv and pip, and nothing else: no compiler, no conda.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq
STAMP := $(VENV)/.setup-done

.PHONY: setup demo test test-real coverage lint types docs clean
.DEFAULT_GOAL := setup

setup: $(STAMP)

# --no-deps: constraints.txt is a full lock (its first lines say why). setuptools and wheel come first because
# seven locked packages are source archives. The torch line adds what a CUDA build of torch asks for. Byte-compiling
# on all cores at the end, other people's tests left out, is quicker than pip's own, one file after the other
# (torch ships a file for a newer Python, hence `|| true`).
$(STAMP): constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "raylora needs Python 3.11 or newer, $(PYTHON) is " + sys.version.split()[0] + "; say PYTHON=python3.11")'
	@echo "setup: installing the locked packages into $(VENV) (one to two minutes, once)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install -c constraints.txt setuptools wheel
	@$(PIP) install --no-compile --no-deps --no-build-isolation -r constraints.txt
	@$(PIP) install -c constraints.txt torch
	@$(PIP) install --no-deps --no-build-isolation -e .
	@$(BIN)/python -W ignore -m compileall -q -q -j 0 -x '/tests?/' $(VENV)/lib || true
	@touch $@

demo: setup
	$(BIN)/raylora tune examples/quickstart.yaml

# Two processes, each with a Ray of its own, a file of tests at a time. PYTEST_ARGS adds to either tier.
test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile $(PYTEST_ARGS)

# Services, kills, built packages. Only a service that did not start is tried once more.
test-real: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile -m real --reruns 1 --only-rerun "did not start" $(PYTEST_ARGS)

coverage: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile --cov --cov-report term --cov-report html:build/coverage $(PYTEST_ARGS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: setup
	$(BIN)/mypy raylora searchers trainables clusters

# Into build/site; a broken link or reference is an error. `$(BIN)/mkdocs serve` shows the pages while they are edited.
docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) build dist .import_linter_cache *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
