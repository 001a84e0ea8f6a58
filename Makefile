# Targets for people and for continuous integration; `make` lists them. Any of them makes the virtualenv first.

PYTHON  ?= python3
VENV    ?= .venv
# For two cores: one of the three waits for clusters most of the time.
WORKERS ?= 3
MARKS   ?=

BIN   := $(VENV)/bin
DEMO  := $(VENV)/.demo
STAMP := $(VENV)/.installed

# One thread a process: several workers with a pool each only disturb one another.
export OMP_NUM_THREADS ?= 1
# onnxruntime otherwise writes a device id below the home directory.
export ORT_DISABLE_TELEMETRY := 1
export RAY_USAGE_STATS_ENABLED := 0
# pip's build environments follow the pins too: old pip reads the first name, new pip the second.
PIP := PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1 \
       $(BIN)/python -m pip install --quiet --compile

.PHONY: help venv demo check test lint types bench clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-6s  %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo '  VENV=$(VENV)  where the virtualenv is;  WORKERS=$(WORKERS)  test processes;  MARKS="not slow"  leave tests out'

venv: $(STAMP)  ## make the virtualenv, with the versions in constraints.txt

# pip compiles what it installs, whatever PYTHONDONTWRITEBYTECODE says: Ray's workers import several times faster for it.
# insightface is only needed for the photograph that it ships; its own OpenCV must stay out (see constraints.txt).
$(DEMO): pyproject.toml constraints.txt
	@echo '== virtualenv in $(VENV) for runs and the demo, without torch: 1.4 GB, about two minutes'
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) --editable '.[faces,demo]'
	@$(PIP) --no-deps insightface
	@touch $@

$(STAMP): $(DEMO)
	@echo '== adds torch, transformers, the client of object stores and what tests need. On Linux the torch of the package'
	@echo '   index brings gigabytes of CUDA; install another build of the version in constraints.txt first to go without'
	@$(PIP) --editable '.[faces,torch,s3,demo,dev]'
	@touch $@

demo: $(DEMO)  ## clean, cluster and shard a few sample people into demo/, without internet
	$(BIN)/idcluster demo demo/

check: lint types  ## lint, types and the tests of minutes: no Ray, no clusters, no long sweeps
	@echo '== quick tests'
	@$(BIN)/python -m pytest -q -n $(WORKERS) -m 'not slow and not ray'

test: lint types  ## lint, types and all tests
	@echo '== tests'
	@$(BIN)/python -m pytest -n $(WORKERS) --durations=50 --durations-min=1 $(if $(MARKS),-m '$(MARKS)')

lint: $(STAMP)  ## ruff: rules and format
	@echo '== lint'
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet .

types: $(STAMP)  ## mypy
	@echo '== types'
	@$(BIN)/mypy

bench: $(STAMP)  ## measure the speed against something run beside it
	$(BIN)/python tests/bench/run.py

clean:  ## delete .venv, caches and the demo
	rm -rf .venv demo build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
