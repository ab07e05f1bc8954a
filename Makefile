# `make help` lists the targets. Everything happens in .venv, which `make setup` builds.
PYTHON ?= python3
BIN := .venv/bin
SCALE ?= quick
DATA ?= data

.DEFAULT_GOAL := help
.PHONY: help setup quickstart report results results-check test lint format docs benchmark clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

setup: .venv/ready ## make .venv and install the project with its test tools

.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 11) <= v < (3, 14) or sys.exit("bnstudy needs Python 3.11 to 3.13, and this is %d.%d: choose another with make PYTHON=python3.12 ..." % v)'
	@echo "Installing into .venv: PyTorch is large, this takes some minutes."
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test,docs]'
	@touch $@

quickstart: setup ## train the quickstart study on real digits and write its report
	$(BIN)/bnstudy study=quickstart scale=$(SCALE)
	$(BIN)/bnstudy-report study=quickstart scale=$(SCALE)

report: setup ## train every study at SCALE (quick, standard, full) and write one report on all claims; ARGS="data.root=..." goes to the runs
	$(BIN)/bnstudy study=all scale=$(SCALE) $(ARGS) || [ $$? -eq 1 ]
	$(BIN)/bnstudy-report study=all scale=$(SCALE)

results: setup ## train, pack and report the published results, in hours on 2 cores; DATA has MNIST/raw and cifar10-jpeg.tar
	$(BIN)/python scripts/results.py make $(DATA)

results-check: setup ## redraw results/published from its packed store, and compare every byte
	$(BIN)/python scripts/results.py check

test: setup ## the whole test suite, on all cores
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

lint: setup ## formatting, style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: setup ## format the code and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: setup ## build the documentation site: build/docs/index.html; a warning is an error
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet docs build/docs

benchmark: setup ## measure the overhead of recording and the speed of sweeps, against plain loops and other libraries
	$(BIN)/python scripts/benchmark.py runner
	$(BIN)/python scripts/benchmark.py sweep

clean: ## remove the environment and caches, never results
	rm -rf .venv build dist .pytest_cache .ruff_cache .mypy_cache
