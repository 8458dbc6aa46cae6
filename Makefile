# Two commands matter: `make demo` and `make test`. Everything else is in `make help`.
# No Docker, no root, no services: what is needed is installed into .venv from hash-pinned files.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
export UV_LINK_MODE ?= copy
export UV_PYTHON_DOWNLOADS := never
# the interpreter that was asked for decides; a user's own settings do not
export PYTHONNOUSERSITE := 1

.DEFAULT_GOAL := help
.PHONY: help demo dev year test test-stripe test-stripe-cli test-stripe-faults check fmt lock docs bench bench-gateway bench-pipeline bench-billing soak clean install install-demo

help: ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

demo: $(VENV)/.demo ## install what it needs, drive real traffic, show usage, limits and invoices, stop
	@$(BIN)/km demo

dev: $(VENV)/.demo ## the same, then kept running (Ctrl-C ends it)
	@$(BIN)/km demo --keep

year: $(VENV)/.dev ## a year of customers in minutes: every bill against one made by hand
	@$(BIN)/km year

test: $(VENV)/.dev ## install what it needs and run all tests
	@$(BIN)/python tests/run.py

test-stripe: $(VENV)/.dev ## the stories of customers on Stripe itself (KM_TEST_STRIPE_KEY=sk_test_...; live keys are refused)
	@$(BIN)/python tests/control_plane/stripe_scenarios/at_stripe.py $(ARGS)

test-stripe-cli: $(VENV)/.dev ## drive the Stripe simulator with Stripe's own command line tool (needs npm)
	@$(BIN)/python tests/stripe_cli/run.py

STRIPE_FAULT_RUNS ?= 200
test-stripe-faults: $(VENV)/.dev ## one story at Stripe under 200 different runs of faults and kills
	@KM_STRIPE_FAULT_RUNS=$(STRIPE_FAULT_RUNS) $(BIN)/python tests/run.py tests/control_plane/stripe_scenarios/test_faults.py

check: $(VENV)/.dev ## linters, types, import contracts, lock files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	@! grep -nE '://' requirements/*.txt || { echo 'a lock file names an address'; exit 1; }

fmt: $(VENV)/.dev ## format and mend what can be mended
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

bench: $(VENV)/.dev ## measure speed; prints tables, writes benchmarks/results/*.json
	@$(BIN)/python benchmarks/run.py

bench-gateway: $(VENV)/.dev ## the gateway's part of it: plugin server, events, limits, a million keys
	@$(BIN)/python benchmarks/run.py gateway

bench-pipeline: $(VENV)/.dev ## the way of an event: shipper, collector, store, rollups, freshness, charts
	@$(BIN)/python benchmarks/run.py pipeline

bench-billing: $(VENV)/.dev ## closing billing periods: 100,000 subscriptions, drafts and final invoices
	@$(BIN)/python benchmarks/run.py billing

SOAK_MINUTES ?= 30
SOAK_SEED ?= 1
soak: $(VENV)/.dev ## 30 minutes of traffic with random faults; fails on one lost, doubled or wrongly served call
	@$(BIN)/python -m devstack.soak --minutes $(SOAK_MINUTES) --seed $(SOAK_SEED)

docs: $(VENV)/.dev ## write generated tables into docs/ anew
	@$(BIN)/python docs/tables.py

lock: $(VENV)/.uv ## pin every dependency with hashes, without index addresses
	$(UV) pip compile requirements/bootstrap.in --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-emit-find-links --no-header --quiet -o requirements/bootstrap.txt
	$(UV) pip compile pyproject.toml --extra demo --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-emit-find-links --no-header --quiet -o requirements/demo.txt
	$(UV) pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-emit-find-links --no-header --quiet -c requirements/demo.txt -o requirements/dev.txt
	$(UV) pip compile pyproject.toml --extra plugins --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-emit-find-links --no-header --quiet -c requirements/demo.txt -o requirements/plugins.txt
	$(UV) pip compile pyproject.toml --extra control-plane --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-emit-find-links --no-header --quiet -c requirements/demo.txt \
	  -o requirements/control-plane.txt

install: $(VENV)/.dev ## make .venv with everything for development

install-demo: $(VENV)/.demo ## make .venv with what the demo needs

clean: ## remove .venv and what tests and demos left behind
	rm -rf $(VENV) .km .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

$(VENV)/.uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bootstrap.txt
	@touch $@

$(VENV)/.demo: $(VENV)/.uv requirements/demo.txt pyproject.toml
	@echo "installing into $(VENV) ..."
	@$(UV) pip install --quiet --python $(BIN)/python --require-hashes -r requirements/demo.txt
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.demo requirements/dev.txt
	@$(UV) pip install --quiet --python $(BIN)/python --require-hashes -r requirements/dev.txt
	@touch $@
