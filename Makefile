# Needs make and Python 3.10 or newer, nothing else. `make` alone lists the targets.
PYTHON ?= python3
VENV ?= $(if $(filter python3,$(PYTHON)),.venv,.venv-$(notdir $(PYTHON)))
CONSTRAINTS ?= constraints.txt
BIN := $(VENV)/bin
# Python compiles what it imports; most of what the frameworks bring is never imported.
INSTALL := -m pip --disable-pip-version-check --no-input install --quiet --no-compile --constraint
PIP = $(BIN)/python $(INSTALL) $(CONSTRAINTS)
FRAMEWORK_PIP = $(FRAMEWORKS)/bin/python $(INSTALL) $(FRAMEWORK_CONSTRAINTS)
EXTRAS := demo,anthropic,google,redis,tokens,notebook
# The frameworks pin older SDKs than the newest that we test, so they live apart.
FRAMEWORKS := $(VENV)-frameworks
FRAMEWORK_CONSTRAINTS ?= constraints-frameworks.txt
FRAMEWORK_TESTS := $(strip $(foreach name,langchain crewai llamaindex,$(wildcard tests/adapters/$(name))))
FRAMEWORK_CODE := $(strip $(foreach name,langchain crewai llamaindex,\
	$(shell find adapters/agent_rate_limiter_adapters/$(name) tests/adapters/$(name) -name '*.py' 2>/dev/null)) tests/benchmarks/frameworks.py)
FRAMEWORK_NOTEBOOKS := $(foreach name,langchain crewai llamaindex,notebooks/$(name).ipynb)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help venv frameworks demo test tested tested-long tested-stores tested-frameworks test-oldest lint typed \
	typed-frameworks format notebooks bench bench-frameworks check constraints clean

help:  ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

demo: venv  ## twenty agents share one limit, without and with the limiter (ARGS="…" for its options)
	$(BIN)/agent-rate-limiter demo $(ARGS)

test: venv frameworks  ## all tests; fails under 95 % branch coverage (PYTHON=python3.12 for another Python)
	$(BIN)/coverage erase
	$(MAKE) --no-print-directory tested-frameworks tested tested-long tested-stores
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

# Parts that `make --jobs=2` runs side by side. What computes for long is not traced: coverage slows our code fourfold.
LONG_TESTS := tests/programs tests/properties tests/simulations
STORE_TESTS := tests/contract tests/core/shared

tested:
	$(BIN)/coverage run -m pytest $(addprefix --ignore=,$(LONG_TESTS) $(STORE_TESTS))

tested-long:
	$(BIN)/python -m pytest $(LONG_TESTS)

tested-stores:
	$(BIN)/coverage run -m pytest $(STORE_TESTS)

tested-frameworks:
	$(if $(FRAMEWORK_TESTS),$(FRAMEWORKS)/bin/coverage run -m pytest -c frameworks.ini $(FRAMEWORK_TESTS))

test-oldest:  ## the same tests with the oldest dependencies that pyproject.toml allows
	$(MAKE) venv frameworks VENV=.venv-oldest CONSTRAINTS=constraints-oldest.txt \
		FRAMEWORK_CONSTRAINTS=constraints-frameworks-oldest.txt
	.venv-oldest/bin/python -m pytest
	$(if $(FRAMEWORK_TESTS),.venv-oldest-frameworks/bin/python -m pytest -c frameworks.ini $(FRAMEWORK_TESTS))

lint: venv frameworks  ## style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(MAKE) --no-print-directory typed typed-frameworks
	$(BIN)/lint-imports --no-logo

typed:
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python

typed-frameworks:
	$(if $(FRAMEWORK_CODE),$(BIN)/mypy --follow-imports silent --cache-dir .mypy_cache/frameworks \
		--python-executable $(FRAMEWORKS)/bin/python $(FRAMEWORK_CODE))
	$(if $(FRAMEWORK_CODE),$(BIN)/pyright --project frameworks.pyright.json --pythonpath $(FRAMEWORKS)/bin/python)

format: venv  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench-frameworks: frameworks  ## how long LangChain, LlamaIndex and CrewAI hold an event loop, and how much of it is ours
	$(FRAMEWORKS)/bin/python -m tests.benchmarks frameworks $(ARGS)

check: lint test  ## what a change must pass

notebooks: venv frameworks  ## execute the notebooks and save what they print
	$(BIN)/python -m tests.notebooks $(filter-out $(FRAMEWORK_NOTEBOOKS),$(wildcard notebooks/*.ipynb))
	$(FRAMEWORKS)/bin/python -m tests.notebooks $(wildcard $(FRAMEWORK_NOTEBOOKS))

bench: $(VENV)/.bench  ## speed and memory, beside other libraries (one of them needs Python 3.12)
	$(BIN)/python -m tests.benchmarks $(ARGS)

venv: $(VENV)/.installed  ## the virtual environment that all of these use

frameworks: $(FRAMEWORKS)/.installed  ## another one, with LangChain, CrewAI and LlamaIndex

define checked
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) is not installed" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "error: $(PYTHON) is older than 3.10; try: make PYTHON=python3.12 …" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "error: $(PYTHON) comes without venv; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
endef

$(VENV)/.installed: pyproject.toml $(CONSTRAINTS)
	$(checked)
	$(PYTHON) -m venv $(VENV)
	$(PIP) pip
	$(PIP) --build-constraint $(CONSTRAINTS) --group dev --editable '.[$(EXTRAS)]'
	@touch $@

$(FRAMEWORKS)/.installed: pyproject.toml $(FRAMEWORK_CONSTRAINTS)
	$(checked)
	$(PYTHON) -m venv $(FRAMEWORKS)
	$(FRAMEWORK_PIP) pip
	$(FRAMEWORK_PIP) --build-constraint $(CONSTRAINTS) --group test --group frameworks \
		--editable '.[langchain,crewai,llamaindex,cli,testing]'
	@touch $@

$(VENV)/.bench: $(VENV)/.installed
	$(PIP) --group bench
	@touch $@

# One resolution for every Python that pyproject.toml allows: where versions differ, lines carry markers.
# The frameworks are resolved apart, for their own pins would hold everything else back.
COMPILE = .venv-constraints/bin/uv pip compile pyproject.toml --quiet --upgrade --universal --python-version 3.10 \
	--no-annotate --custom-compile-command "make constraints"
COMPILE_SDKS = $(COMPILE) $(foreach extra,openai anthropic google redis tokens cli testing proxy metrics notebook,--extra $(extra))
COMPILE_FRAMEWORKS = $(COMPILE) $(foreach extra,langchain crewai llamaindex cli testing redis,--extra $(extra)) \
	--group test --group frameworks
OLDEST := --resolution lowest-direct

constraints:  ## resolve constraints*.txt anew
	$(PYTHON) -m venv .venv-constraints
	.venv-constraints/bin/python -m pip install --quiet uv
	$(COMPILE_SDKS) --group dev --group bench --output-file constraints.txt
	$(COMPILE_SDKS) $(OLDEST) --output-file .venv-constraints/lowest.txt
	$(COMPILE_SDKS) --group dev --constraint .venv-constraints/lowest.txt --output-file constraints-oldest.txt
	$(COMPILE_FRAMEWORKS) --output-file constraints-frameworks.txt
	$(COMPILE_FRAMEWORKS) $(OLDEST) --output-file constraints-frameworks-oldest.txt

clean:  ## remove what these made
	rm -rf .venv .venv-* build dist .coverage .coverage.* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find core adapters tests -name __pycache__ -prune -exec rm -rf {} +
