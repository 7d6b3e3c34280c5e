# Every target makes its own .venv when there is none, and reinstalls when pyproject.toml or constraints.txt change.
# make help lists the targets.

PYTHON ?= python3
JOBS ?= 2
PYTEST_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
RUNTIME := $(VENV)/.installed-runtime
DEV := $(VENV)/.installed-dev
DOCS := $(VENV)/.installed-docs
PIP := $(BIN)/python -m pip --disable-pip-version-check install -c constraints.txt
# One torch thread for each of the test processes: more only fight for the same cores.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-all check bench docs clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

demo: $(RUNTIME)  ## the tour: train on made-up scenes, evaluate, predict, paint (runs/demo)
	$(BIN)/segvit demo

test: $(DEV)  ## the default tests (JOBS=2 processes, PYTEST_ARGS are handed on)
	$(PYTEST) -n $(JOBS) --dist loadfile --ignore tests/test_structure.py $(PYTEST_ARGS)  # `make check` runs that file

test-all: $(DEV)  ## the slow tests too
	$(PYTEST) -n $(JOBS) --dist loadfile -m "" $(PYTEST_ARGS)

check: $(DEV)  ## ruff, formatting, mypy, installed versions, import direction, imports without extras
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pip --disable-pip-version-check check
	$(PYTEST) -q tests/test_structure.py

bench: $(RUNTIME)  ## the benchmarks that need no trained model, one after the other
	@set -e; for name in inference shrunk training_step loading evaluation memory; do \
		echo "== benchmarks/$$name.py"; $(BIN)/python "benchmarks/$$name.py"; done

docs: $(DOCS)  ## the documentation site (site/index.html), with warnings as errors and every link checked
	$(BIN)/python docs/tools/build_site.py

clean:  ## remove caches and builds; runs/ and .venv stay
	rm -rf build site .cache dist .whl .pytest_cache .ruff_cache .mypy_cache *.egg-info
	find . -name __pycache__ -not -path './$(VENV)/*' -type d -prune -exec rm -rf {} +

$(RUNTIME): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing segvit into $(VENV) (a few minutes the first time)"
	$(PIP) -e .
	@touch $@

$(DEV): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing segvit and its development tools into $(VENV) (a few minutes the first time)"
	$(PIP) -e '.[dev]'
	@touch $@ $(RUNTIME)

$(DOCS): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing segvit and the tools of its site into $(VENV) (a few minutes the first time)"
	$(PIP) -e '.[docs]'
	@touch $@ $(RUNTIME)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "segvit needs Python 3.11 or newer; '$(PYTHON)' is: $$($(PYTHON) --version 2>&1)"; \
		echo "Name another one: make $(or $(MAKECMDGOALS),test) PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }
