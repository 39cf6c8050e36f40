# Two commands are enough: `make run` and `make test`. Everything they need is fetched into this folder.
SHELL := /bin/bash
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= auto

.DEFAULT_GOAL := help
.PHONY: help install run test check package results lock clean

help: ## show this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 12

install: $(VENV)/.installed .tools/.installed ## everything below needs this; does nothing the second time

$(VENV)/.installed: requirements/all.txt pyproject.toml
	@scripts/install-python.sh $(PYTHON) $(VENV)
	@touch $@

.tools/.installed: scripts/package.json scripts/package-lock.json scripts/install-tools.sh
	@scripts/install-tools.sh .tools
	@touch $@

.venv313/.installed: requirements/runtimes.txt scripts/install-runtimes.sh
	@scripts/install-runtimes.sh .venv313 .tools
	@touch $@

run: install .venv313/.installed ## the closed loop on the embedded local clouds, ending in a report
	@$(BIN)/opportune demo --scenario drift --out build/demo

check: install ## style, types, dependency rule
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy .
	@$(BIN)/lint-imports

package: install .venv313/.installed ## what is deployed: build/aws, build/aws.zip and build/azure (ARCH=arm64 for Graviton)
	@$(BIN)/python -m infra.package

test: check .venv313/.installed ## everything that must hold, in parallel
	@$(BIN)/pytest -n $(WORKERS) --dist loadgroup

results: install ## docs/results.md, its pictures and the README's numbers, from benchmarks/results/*.json
	@$(BIN)/python -m benchmarks.results

lock: install ## after editing the dependencies: pin them again
	@scripts/lock.sh $(VENV)

clean: ## remove what the commands above made
	rm -rf build $(VENV) .venv313 .tools .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
