# Every recipe a developer or a first-time user needs. `make help` lists them.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SIZE ?= 100MB
LOG ?=
MUTANTS ?=
ROUNDS ?= 10

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast faults slow mutants check format sim sim-long sim-storage bench bench-master bench-calm bench-stragglers install clean

help: ## list the recipes
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# pip reads dependency groups (PEP 735) since 25.1; the lock keeps CI and newcomers on one set.
$(VENV)/.pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "minimr needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1). Try: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	@touch $@

$(VENV)/.run: $(VENV)/.pip pyproject.toml requirements.lock
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --constraint requirements.lock --editable .
	@$(BIN)/python -m compileall -q minigfs minimr jobs datasets
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	$(BIN)/python -m pip install --quiet --constraint requirements.lock --group dev
	@touch $@

install: $(VENV)/.run ## install minimr and minigfs into .venv
	@echo "installed: $(BIN)/minimr, $(BIN)/minigfs"

demo: $(VENV)/.run ## count a web log on a cluster of this machine (LOG=access.log for your own, SIZE=1GB)
	@$(BIN)/python examples/demo.py --size $(SIZE) $(if $(LOG),--log '$(LOG)')

test: $(VENV)/.dev ## the test suite, real processes and Ray included; the longer campaigns are in faults
	$(BIN)/python -m pytest -m 'not slow' -n 3 --dist loadfile

test-fast: $(VENV)/.dev ## the tests that start no cluster
	$(BIN)/python -m pytest -m 'not e2e and not slow'

faults: $(VENV)/.dev ## masters killed, paused, cut off, damaged, filled up at other moments each round (ROUNDS=10)
	@for seed in $$(seq $(ROUNDS)); do \
	  echo "MASTERS_SEED=$$seed"; \
	  MASTERS_SEED=$$seed $(BIN)/python -m pytest -q tests/e2e/test_master*.py \
	    tests/e2e/test_no_majority.py tests/e2e/test_url_count_failover.py || exit 1; \
	done

slow: $(VENV)/.dev ## every long proof once: chaos, memory limits, kill -9 of everything (about an hour)
	$(BIN)/python -m pytest -q -m slow

mutants: $(VENV)/.dev ## plant known mistakes in copies of the source; every one must be found (MUTANTS='r01 r3*')
	$(BIN)/python -m tests.mutants $(MUTANTS)

check: $(VENV)/.dev ## format, lint, types, import contracts
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev ## rewrite the code in the house format
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

SEEDS ?= 2000
sim: $(VENV)/.dev ## simulate SEEDS=2000 groups of masters under faults, one process (JOBS=4 for more)
	$(BIN)/python -m tests.sim --count $(SEEDS) --jobs $(or $(JOBS),1) --quiet

sim-storage: SEEDS = 300
sim-storage: $(VENV)/.dev ## simulate SEEDS=300 clusters of chunkservers and clients under faults
	$(BIN)/python -m tests.sim --storage --count $(SEEDS) --jobs $(or $(JOBS),1) --quiet

sim-long: SEEDS = 10000
sim-long: sim ## ten thousand seeds

bench: $(VENV)/.dev ## url-count and word-count beside Polars and DuckDB, on the same files in the same run
	$(BIN)/python benchmarks/url_count.py

bench-master: $(VENV)/.dev ## the longest pause of three busy masters with a million files
	$(BIN)/python benchmarks/master_pauses.py

bench-calm: $(VENV)/.dev ## ten minutes of jobs and file-system load: no election may happen
	$(BIN)/python benchmarks/calm_load.py

bench-stragglers: $(VENV)/.dev ## what backup tasks are worth on real processes, one of them slow
	$(BIN)/python benchmarks/stragglers.py

clean: ## remove the environment and the demo's cluster
	rm -rf $(VENV) .demo build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
