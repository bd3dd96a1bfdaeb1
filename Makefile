# The two commands that a newcomer needs are `make demo` and `make test`. `make` alone lists the rest.
SHELL := /bin/bash
PYTHON ?= python3
TIER ?=
RECIPE := bundles/recipes/smollm2.yaml
BIN := .venv/bin
CACHE = $${AIRGAP_APPLIANCE_CACHE:-$${XDG_CACHE_HOME:-$$HOME/.cache}/airgap-appliance}
export PYTHON TIER
# Where it is set, each of the thousand programs that the tests start compiles its modules anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help system setup oracles bed demo test prove soak bench lint check docs format runtime lock clean clean-cache

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: setup ## The whole journey on this machine, in .demo/ (first time: about 15 minutes, then under one)
	@$(BIN)/appliance demo

test: runtime ## Run the tests (TIER=ci: also the journeys, the slow ones, and those of `make bed`)
	@$(BIN)/python -m pytest $(if $(filter ci,$(TIER)),-n 2 -m "not vagrant",-n 3)

bed: setup ## Build the test hosts: Debian trees, the guest, the Vagrant box (first time: three to eight minutes, then instant)
	@.ci/system bed
	@$(BIN)/python -m tests.bed build

prove: runtime bed ## The whole story in a virtual machine without a network card, with a transcript (about a quarter of an hour where it is emulated)
	@$(BIN)/python -m tests.prove --workspace .demo/workspace

soak: runtime bed ## Run what takes hours: 10 000 faults of a host, 20 power cuts of a guest, faults in signing/, 2 000 mutations of the bundle, 100 000 requests, six libraries of clients, half an hour of mixed load, every test of a test host 20 times (ROUNDS=n), the runtime built again, a seal of 500 MB, models of 5 and 8 GiB
	@$(BIN)/python -m tests.sim.host_faults 10000
	@$(BIN)/python -m tests.prove.power_cuts 20
	@$(BIN)/python -m tests.mutants
	@$(BIN)/python -m tests.mutate_bundle
	@$(BIN)/python -m tests.reproduce
	@$(BIN)/python -m tests.appliance.big_build
	@BODIES=100000 $(BIN)/python -m pytest -m ci tests/appliance/serve/requests/test_any_body.py
	@EXAMPLES=1000 $(BIN)/python -m pytest -m ci tests/appliance/serve/gateway/test_described_api.py
	@$(BIN)/python -m tests.conformance.clients
	@$(BIN)/python -m tests.load 1800
	@INSTANTS=40 $(BIN)/python -m pytest -m ci tests/appliance/cli/demo/test_demo_killed.py
	@KILLS=100 $(BIN)/python -m pytest tests/bundles/chunks/test_copy_killed.py
	@BIG_MIB=5120 $(BIN)/python -m pytest -m vm -k swapped tests/bundles/stick/test_real_sticks.py
	@SEALED_MIB=500 $(BIN)/python -m pytest -m vm tests/bed/test_guest_seal.py
	@BOUNDARIES=all $(BIN)/python -m pytest -m ci tests/appliance/host/maintenance/test_every_boundary.py
	@BARE_HOSTS=all $(BIN)/python -m pytest -m ci tests/journeys/test_11_bare_host.py
	@$(BIN)/python -m tests.bed.soak $(or $(ROUNDS),20)

bench: runtime oracles ## Measure the figures, each beside its peer (exit 1 where one is missed; ONLY=name: one row; WRITE=1: into docs/figures.md)
	@$(BIN)/python -m tests.bench $(if $(ONLY),--only $(ONLY)) $(if $(WRITE),--write docs/figures.md)

check: lint test ## Everything that must hold before a change is done: lint, then test

oracles: setup ## Make the environments of other people's verifiers, which the tests compare ours with (one minute)
	@$(BIN)/python -m tests.oracles

lint: setup ## Check form, types, imports, playbooks and shell scripts
	@$(BIN)/ruff format --check --quiet . || { echo "hint: make format"; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-logo
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(if $(MAKE_TERMOUT),,NO_COLOR=1) ANSIBLE_LIBRARY=playbooks/library ansible-lint -q playbooks
	@$(BIN)/shellcheck .ci/*
	@$(BIN)/shellcheck --shell=sh $$(find appliance bundles playbooks tests -name '*.sh')

docs: setup ## Write the generated pages again
	@$(BIN)/python -m tests.pages

format: setup ## Write the code in the project's form
	@$(BIN)/ruff format --quiet .
	@$(BIN)/ruff check --fix --quiet .

setup: system ## Make .venv from requirements-dev.lock (instant when nothing changed)
	@.ci/setup

system: ## Install the Debian packages that are missing, or print the line to run
	@.ci/system

runtime: setup ## Build the demo's bundle, so that the cache holds its sources and the runtime
	@$(BIN)/appliance init .demo/workspace >/dev/null
	@$(BIN)/appliance build $(RECIPE) --workspace .demo/workspace >/dev/null

lock: setup ## Choose the newest versions of the development environment again
	@$(BIN)/uv pip compile pyproject.toml --extra build --group dev --universal --python-version 3.10 --upgrade \
		--generate-hashes --no-emit-index-url --no-annotate --no-header --quiet --output-file requirements-dev.lock

clean: ## Remove what the other targets made in this folder
	@chmod -R u+w .demo 2>/dev/null || true
	rm -rf .demo .venv .ansible .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

clean-cache: ## Remove downloaded sources and built runtimes (the next demo needs about 15 minutes)
	rm -rf "$(CACHE)"
