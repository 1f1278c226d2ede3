# Headgate. `make` lists the commands; each sets up what it needs in .venv/ first.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo test check format serve bench recogniser fuzz attack lock clean

help: ## List the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

$(READY): pyproject.toml deploy/setup.sh $(wildcard deploy/lock/*.txt)
	@PYTHON=$(PYTHON) sh deploy/setup.sh

setup: $(READY) ## Make .venv with everything pinned (CPU or GPU flavour of vLLM)

demo: $(READY) ## The whole loop on real parts, about 5 minutes (DETACH=1: exit at the end)
	@DETACH=$(DETACH) $(BIN)/python -m gateway.demo

test: $(READY) ## All tests, with a real vLLM, real adapters and the OpenAI SDKs
	@$(BIN)/pytest

check: $(READY) ## Format, lint, types, import contracts
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(READY) ## Format and mend what ruff can
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

serve: $(READY) ## Start the gateway (CONFIG=headgate.yaml)
	@$(BIN)/headgate serve --config $(or $(CONFIG),headgate.yaml)

bench: ## Run every benchmark suite but the soak; `make bench-NAME` runs one
	@for suite in $(filter-out soak,$(patsubst benchmarks/%.py,%,$(wildcard benchmarks/[a-z]*.py))); do \
		$(MAKE) --no-print-directory bench-$$suite || exit 1; done

bench-%: $(READY)
	@mkdir -p benchmarks/out
	@PYTHONPATH=$(CURDIR):$(CURDIR)/benchmarks $(BIN)/python -P -m benchmarks.$* $(ARGS)

recogniser: $(READY) ## Train the bundled recogniser of names and addresses anew (15 minutes on a core; needs Faker)
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.recogniser.train

fuzz: $(READY) ## Byte-level fuzz of the gateway's wire (SECONDS=600, SEED=…)
	@$(BIN)/python -m tests.dataplane.fuzz $(or $(SECONDS),600) $(SEED)

attack: $(READY) ## Every canary, field, disguise and path out against the gateway, about 10 minutes
	@$(BIN)/python -m tests.privacy.attack

lock: $(READY) ## Resolve the dependencies anew into deploy/lock/
	@$(BIN)/pip install -q uv && PATH="$(CURDIR)/$(BIN):$$PATH" sh deploy/lock/update.sh

clean: ## Remove the environment and what runs left behind
	rm -rf .venv .cache var node_modules tests/sdk/node/node_modules
