# `make demo` and `make test` need Python 3.11 or newer and make, nothing else: each creates .venv
# and installs the pinned dependencies when they are missing. ARGS reaches the command that runs.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help setup demo test check fix protos compiled clean

help:
	@echo 'make demo    train, cut, plan, serve and check a model on this machine'
	@echo 'make test    run the tests            (ARGS="tests/unit -k plan")'
	@echo 'make check   format, lint, types, import arrows, generated code'
	@echo 'make fix     let the formatter and the linter repair what they can'
	@echo 'make protos  regenerate the code of protos/*.proto'
	@echo 'make compiled  compile scheduler and simulator into build/compiled (needs a C compiler)'
	@echo 'make setup   install everything into $(VENV)'
	@echo 'make clean   remove what runs and tools left behind; $(VENV) stays'

setup: $(VENV)/installed-dev

demo: $(VENV)/installed-demo
	@$(BIN)/penstock demo $(ARGS)

test: $(VENV)/installed-dev
ifdef ARGS
	@$(BIN)/python -m pytest $(ARGS)
else
	@# What only computes shares the cores; what talks to processes has them to itself.
	@$(BIN)/python -m pytest -n 2 --dist loadgroup tests/conformance tests/unit tests/property
	@$(BIN)/python -m pytest tests/integration tests/e2e
endif

check: $(VENV)/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/protos.py --check

fix: $(VENV)/installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

protos: $(VENV)/installed-dev
	$(BIN)/python tools/protos.py

compiled: $(VENV)/installed-dev
	$(BIN)/python -m tools.compiled

clean:
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps inside .venv, so that a second run installs nothing. The dev extra contains the demo's.

$(VENV)/created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo 'error: $(PYTHON) is older than Python 3.11; try make PYTHON=python3.12 $(MAKECMDGOALS)' >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/installed-demo: pyproject.toml constraints.txt | $(VENV)/created
	@echo 'installing what the demo needs into $(VENV), once; this takes a minute or two'
	@$(PIP_INSTALL) -e '.[demo]'
	@touch $@

$(VENV)/installed-dev: pyproject.toml constraints.txt | $(VENV)/created
	@echo 'installing what tests and checks need into $(VENV), once; this takes a minute or two'
	@$(PIP_INSTALL) -e '.[dev]'
	@touch $@ $(VENV)/installed-demo
