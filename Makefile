# One vocabulary of tasks for hand, pre-commit and CI. `make` alone lists them.
PYTHON ?= python3
BIN := .venv/bin
FULL := modules/fraud_detection/requirements.txt
DEV := requirements/dev.txt
MODULE := $(BIN)/python -m modules.fraud_detection

ifneq (,$(wildcard .env))
include .env
export $(shell sed -n 's/^\([A-Z_]*\)=.*/\1/p' .env)
endif

.DEFAULT_GOAL := help
.PHONY: help install run demo serve test check format lambda aws-local lock clean

help:  ## list the words of this Makefile
	@sed -n 's/^\([a-z-]*\):.*## /  make \1|/p' $(MAKEFILE_LIST) | column -t -s '|'

install: .venv/run  ## make .venv from the hash-locked file

run: .venv/run  ## the main job: simulated transactions to a registered, explained model
	$(MODULE) pipeline

demo: .venv/run  ## half a year in minutes: drift, retraining, promotion, a refused and a rolled-back candidate
	$(MODULE) demo

serve: .venv/run  ## the API on port 8000; trains first if there is no production version
	@$(MODULE) lineage >/dev/null 2>&1 || $(MODULE) pipeline
	$(MODULE) serve

test: .venv/dev  ## the tests, with coverage
	$(BIN)/python -m pytest -n auto --dist worksteal --cov --cov-report=term

check: .venv/dev  ## formatting, lint, types and the direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/dev  ## put the code into shape
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lambda: .venv/run  ## dist/lambda.zip, the function between Kinesis and the scorer
	$(BIN)/python -m infra.lambda_package

aws-local: .venv/dev  ## the profile aws, end to end, on a local server that speaks AWS's protocols
	$(BIN)/python -m infra.aws_local

lock:  ## resolve pyproject.toml anew into the hash-locked files; needs uv
	uv export --quiet --no-emit-project --no-header --no-annotate --no-default-groups -o requirements/serve.txt
	uv export --quiet --no-emit-project --no-header --no-annotate --no-default-groups --group train -o $(FULL)
	uv export --quiet --no-emit-project --no-header --no-annotate --no-default-groups --group train --group dev -o $(DEV)

clean:  ## remove the environment and everything that was made
	rm -rf .venv var .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv

.venv/run: .venv/bin/python $(FULL)
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes --requirement $(FULL)
	@touch $@

.venv/dev: .venv/run $(DEV)
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes --requirement $(DEV)
	@touch $@
