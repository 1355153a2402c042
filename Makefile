# `make help` lists what there is to do.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help run dev test thorough check format conformance bench docs lock protocol clean

# Which Python makes the environment; empty: `scripts/make-environment` looks for one.
PYTHON ?=
VENV := .venv
BIN := $(VENV)/bin
ADDRESS ?= 0.0.0.0:5443
DATA ?= data
T ?=
B ?=
# What the web interface's pages refer to, and what it is built from.
ASSETS := src/dtr/http/ui/static/manifest.json
WEB := $(shell find web -name node_modules -prune -o -type f -print)

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

run: $(VENV)/run.stamp $(ASSETS) ## Start dtr on its embedded default: https://localhost:5443
	@exec $(BIN)/dtr serve --data-dir $(DATA) --https-address $(ADDRESS)

dev: $(VENV)/dev.stamp $(ASSETS) ## Prepare the environment with everything for development

test: $(VENV)/dev.stamp $(ASSETS) ## Install what the tests need and run them all; T=path runs some
	@scripts/prepare-tests
ifeq ($(T),)
	@# Those that measure, or take file descriptors over, run alone. Those that drive programs take many processes each,
	@# so two of them run at a time; of the others three on two cores: they wait for servers a quarter of their time.
	@failed=; files="--dist loadfile --no-loadscope-reorder"; \
	$(BIN)/pytest -n 3 $$files -m "not e2e and not alone and not thorough" \
	  tests/docs tests/contract tests/integration tests/robustness tests/unit || failed=1; \
	$(BIN)/pytest -n 2 $$files -m "e2e and not alone and not thorough" tests/browser tests/robustness tests/e2e || failed=1; \
	$(BIN)/pytest -m "alone and not thorough" tests || failed=1; \
	test -z "$$failed"
else
	$(BIN)/pytest $(T)
endif

thorough: $(VENV)/dev.stamp $(ASSETS) ## Run the long proofs as well: safeguards taken away one by one, processes killed for minutes
	@scripts/prepare-tests
	DTR_PROMOTIONS=40 $(BIN)/pytest -m thorough tests
	DTR_GC_MINUTES=3 $(BIN)/pytest tests/robustness/test_collection.py
	DTR_FUZZ_EXAMPLES=20 $(BIN)/pytest tests/integration/api/test_fuzz.py

check: $(VENV)/dev.stamp ## Check format, lint, types, import direction and documents
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/sphinx-build -q -W -b html docs docs/_build

format: $(VENV)/dev.stamp ## Bring the code into form
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

conformance: $(VENV)/dev.stamp ## Run the official OCI conformance suite against a server of its own
	@scripts/prepare-tests go
	$(BIN)/pytest tests/e2e/test_conformance.py

bench: $(VENV)/dev.stamp $(ASSETS) ## Measure side by side with docker-registry
	@scripts/prepare-tests registry go
	$(BIN)/python -m benchmarks.run $(B)

docs: $(VENV)/dev.stamp ## Build the documents into docs/_build
	$(BIN)/sphinx-build -q -W -b html docs docs/_build

lock: $(VENV)/dev.stamp ## Bring the locked dependencies up to date
	for one in build core node test swift; do \
	  $(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --upgrade -q \
	    requirements/$$one.in -o requirements/$$one.txt; \
	done

protocol: $(VENV)/dev.stamp ## Compile the protocol of the signer after a change
	@scripts/make-protocol

clean: ## Remove what was made here, but not data
	rm -rf $(VENV) dist docs/_build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .cache

# Whichever environment is there has what builds them.
$(ASSETS): $(WEB) | $(VENV)/run.stamp
	@echo "Building the web interface's assets ..."
	@$(BIN)/python hatch_build.py >/dev/null

$(VENV)/run.stamp: requirements/core.txt pyproject.toml
	@scripts/make-environment $(VENV) requirements/core.txt $(PYTHON)
	@touch $@

$(VENV)/dev.stamp: requirements/test.txt pyproject.toml
	@scripts/make-environment $(VENV) requirements/test.txt $(PYTHON)
	@touch $@ $(VENV)/run.stamp
