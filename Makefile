# make demo and make test need Python 3.10+, make and a network with PyPI; they set up .venv by themselves.
PYTHON ?= python3
BIN := .venv/bin
export WANDB_SILENT ?= true

.PHONY: setup demo test test-slow oracles lint clean

setup: .venv/ready

.venv/ready: setup.cfg constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	touch $@

demo: setup
	bash experiments/demo/run.sh $(BIN)/python

# Two processes of one thread each: the tests are many small computations, for which threads wait for each other.
PYTEST := OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

test: setup
	$(PYTEST) -m "not slow"

test-slow: setup # killed processes, lost ranks
	$(PYTEST) -m slow

oracles: setup
	$(BIN)/python -m pytest -m oracle

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv runs/demo data/demo data/demo_person
