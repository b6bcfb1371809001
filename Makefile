# Needs make and Python 3.10 or newer, nothing else. `make` alone lists the targets.
PYTHON ?= python3
VENV ?= $(if $(filter python3,$(PYTHON)),.venv,.venv-$(notdir $(PYTHON)))
CONSTRAINTS ?= constraints.txt
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input install --quiet --constraint $(CONSTRAINTS)
EXTRAS := demo,anthropic,google

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help venv demo test test-oldest lint format bench check constraints clean

help:  ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

demo: venv  ## twenty agents share one limit, without and with the limiter (ARGS="…" for its options)
	$(BIN)/agent-rate-limiter demo $(ARGS)

test: venv  ## all tests; fails under 95 % branch coverage (PYTHON=python3.12 for another Python)
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

test-oldest:  ## the same tests with the oldest dependencies that pyproject.toml allows
	$(MAKE) venv VENV=.venv-oldest CONSTRAINTS=constraints-oldest.txt
	.venv-oldest/bin/python -m pytest

lint: venv  ## style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports --no-logo

format: venv  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

check: lint test  ## what a change must pass

bench: $(VENV)/.bench  ## speed and memory, beside other libraries (one of them needs Python 3.12)
	$(BIN)/python -m tests.benchmarks $(ARGS)

venv: $(VENV)/.installed  ## the virtual environment that all of these use

$(VENV)/.installed: pyproject.toml $(CONSTRAINTS)
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) is not installed" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "error: $(PYTHON) is older than 3.10; try: make PYTHON=python3.12 …" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "error: $(PYTHON) comes without venv; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) pip
	$(PIP) --build-constraint $(CONSTRAINTS) --group dev --editable '.[$(EXTRAS)]'
	@touch $@

$(VENV)/.bench: $(VENV)/.installed
	$(PIP) --group bench
	@touch $@

# One resolution for every Python that pyproject.toml allows: where versions differ, lines carry markers.
# The frameworks stay out, for their own pins would hold everything else back.
COMPILE = .venv-constraints/bin/uv pip compile pyproject.toml --quiet --upgrade --universal --python-version 3.10 \
	--no-annotate --custom-compile-command "make constraints" \
	$(foreach extra,openai anthropic google redis tokens cli testing proxy metrics notebook,--extra $(extra))

constraints:  ## resolve constraints*.txt anew
	$(PYTHON) -m venv .venv-constraints
	.venv-constraints/bin/python -m pip install --quiet uv
	$(COMPILE) --group dev --group bench --output-file constraints.txt
	$(COMPILE) --resolution lowest-direct --output-file .venv-constraints/lowest.txt
	$(COMPILE) --group dev --constraint .venv-constraints/lowest.txt --output-file constraints-oldest.txt

clean:  ## remove what these made
	rm -rf .venv .venv-* build dist .coverage .coverage.* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find core adapters tests -name __pycache__ -prune -exec rm -rf {} +
