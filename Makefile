# Two commands are enough: `make run` and `make test`. Everything they need is fetched into this folder.
SHELL := /bin/bash
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= auto
READY := $(VENV)/.installed .tools/.installed

.DEFAULT_GOAL := help
.PHONY: help install run test test-fast check package results deploy-aws deploy-azure lock clean

help: ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 15

install: $(READY) ## everything below needs this; does nothing the second time
	@echo 'ready: ./opportune --help; to type opportune alone: export PATH="$(CURDIR):$$PATH"'

$(VENV)/.installed: requirements/all.txt pyproject.toml
	@scripts/install-python.sh $(PYTHON) $(VENV)
	@touch $@

.tools/.installed: scripts/package.json scripts/package-lock.json scripts/install-tools.sh
	@scripts/install-tools.sh .tools
	@touch $@

.venv313/.installed: requirements/runtimes.txt scripts/install-runtimes.sh
	@scripts/install-runtimes.sh .venv313 .tools
	@touch $@

.venvlint/.installed: requirements/lint.txt scripts/install-lint.sh $(VENV)/.installed
	@scripts/install-lint.sh .venvlint
	@touch $@

run: $(READY) .venv313/.installed ## the closed loop on the embedded local clouds, ending in a report
	@$(BIN)/opportune demo --scenario drift --out build/demo

check: $(READY) ## style, types, dependency rule
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy .
	@$(BIN)/lint-imports

package: $(READY) .venv313/.installed ## what is deployed: build/aws, build/aws.zip and build/azure (ARCH=arm64 for Graviton)
	@$(BIN)/python -m infra.package

test: check .venv313/.installed .venvlint/.installed ## everything that must hold, in parallel
	@OMP_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS) --dist loadgroup

test-fast: check ## in two minutes: no emulated clouds, nothing slow
	@OMP_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS) --dist loadgroup -m "not slow and not emulator"

results: $(READY) ## docs/results.md, its pictures and the README's numbers, from benchmarks/results/*.json
	@$(BIN)/python -m benchmarks.results

deploy-aws: $(READY) ## STAGE=dev PARAMS="service=qa alarmEmail=…"; ./opportune deploy aws --help
	@$(BIN)/opportune deploy aws --stage $(or $(STAGE),dev) $(foreach one,$(PARAMS),--set '$(one)')

deploy-azure: $(READY) ## STAGE=dev GROUP=opportune PARAMS="service=qa …"; ./opportune deploy azure --help
	@$(BIN)/opportune deploy azure --stage $(or $(STAGE),dev) --group $(or $(GROUP),opportune) $(foreach one,$(PARAMS),--set '$(one)')

lock: $(READY) ## after editing the dependencies: pin them again
	@scripts/lock.sh $(VENV)

clean: ## remove what the commands above made
	rm -rf build $(VENV) .venv313 .venvlint .tools .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
