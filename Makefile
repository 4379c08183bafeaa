# make demo        transcribe, then train a digit recogniser from audio to WER (about 5 minutes)
# make test        format, lint, types, fast tests and doctests (.ci/run calls this)
# make test-slow   the long tests
PYTHON ?= python3
BIN := .venv/bin
# as `las` itself sets it: else tests take ten times as long beside other programs
export GOMP_SPINCOUNT ?= 2000

.PHONY: demo test test-slow install clean

install: .venv/installed

.venv/installed: setup.py
	$(PYTHON) -c 'import sys; sys.exit("las needs Python 3.11 or newer: make PYTHON=python3.12 ..." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[demo,dev]'
	touch $@

demo: .venv/installed
	$(BIN)/python tools/demo.py

test: .venv/installed
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy
	$(BIN)/pytest --quiet

test-slow: .venv/installed
	$(BIN)/pytest --quiet -m slow

clean:
	rm -rf .venv build *.egg-info demo
