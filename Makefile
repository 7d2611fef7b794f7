# One vocabulary of tasks for hand, pre-commit and CI. `make` alone lists them.
PYTHON ?= python3
BIN := .venv/bin
FULL := modules/fraud_detection/requirements.txt
DEV := requirements/dev.txt
SERVE := requirements/serve.txt
TOOLS := .venv-tools/bin
SUDO = $(shell [ $$(id -u) = 0 ] || echo sudo)
# A lock file does not say what needs what, and the program warns of it each time.
SBOM = PYTHONWARNINGS=ignore $(TOOLS)/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible
SCRIPTS = .ci/run $(wildcard infra/*.sh infra/*/*.sh)
MODULE ?= fraud_detection
WORDS := $(BIN)/python -m modules.$(MODULE)
COMPOSE ?= docker compose --env-file .env --file infra/compose.yaml
export GIT_COMMIT := $(shell git rev-parse HEAD 2>/dev/null || echo unknown)

ifneq (,$(wildcard .env))
include .env
export $(shell sed -n 's/^\([A-Z_]*\)=.*/\1/p' .env)
endif

.DEFAULT_GOAL := help
.PHONY: help install run demo serve up stack down test infra-test monitoring-test scorecard dashboards images-test check \
    workflow-check docker-check secrets-scan audit sbom format lambda aws-local images push train-on-sagemaker tools \
    monitoring-servers terraform-providers lock clean

help:  ## list the words of this Makefile
	@sed -n 's/^\([a-z-]*\):.*## /  make \1|/p' $(MAKEFILE_LIST) | column -t -s '|'

install: .venv/run  ## make .venv from the hash-locked file

run: .venv/run  ## the main job: simulated transactions to a registered, explained model
	$(WORDS) pipeline

demo: .venv/run  ## 80 live days in minutes: drift, retraining, promotion, a refused and a rolled-back candidate
	$(WORDS) demo

serve: .venv/run  ## the API on port 8000; trains first if there is no production version
	@$(WORDS) lineage >/dev/null 2>&1 || $(WORDS) pipeline
	$(WORDS) serve

test: .venv/dev  ## the tests, with coverage
	$(BIN)/python -m pytest -n auto --dist worksteal --cov --cov-report=term

infra-test: .venv/dev .venv-tools/done lambda  ## Terraform: rules, plans, mutants, and a life on a local AWS
	$(BIN)/python -m pytest -m infra -n 2 --dist loadfile -raP tests/terraform

monitoring-test: .venv/dev  ## Prometheus, Alertmanager and the dashboards, on real traffic
	$(BIN)/python -m monitoring.dashboards --check
	$(BIN)/python -m pytest -m monitoring -n 2 --dist loadfile tests/monitoring_stack

scorecard: .venv/dev  ## seven principles of MLOps, each with the tests that prove it, run now
	@$(BIN)/python scripts/scorecard.py

dashboards: .venv/dev  ## write Grafana's dashboards as monitoring/ builds them
	$(BIN)/python -m monitoring.dashboards

images-test: .venv/dev  ## both images and the whole stack, for real; needs a Docker engine
	$(BIN)/python -m pytest -m images tests/images tests/stack

check: .venv/dev  ## formatting, lint, types, the direction of imports, shell scripts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/shellcheck $(SCRIPTS)

workflow-check: .venv-tools/done  ## GitHub's workflow and pre-commit's hooks: schemas, security
	$(TOOLS)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/train.yml
	$(TOOLS)/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	$(TOOLS)/zizmor --offline --quiet --pedantic --strict-collection .

docker-check: .venv-tools/done  ## the Dockerfile
	$(TOOLS)/hadolint modules/fraud_detection/Dockerfile

secrets-scan: .venv-tools/done  ## nothing that git holds, or is about to, is a secret
	@git rev-parse --is-inside-work-tree >/dev/null
	git ls-files -z --cached --others --exclude-standard | xargs -0 $(TOOLS)/detect-secrets-hook --no-verify --baseline .secrets.baseline

audit: .venv-tools/done  ## known vulnerabilities of what is locked; asks the index for advisories
	$(TOOLS)/pip-audit --strict --require-hashes --disable-pip --progress-spinner off $(addprefix --requirement ,$(SERVE) $(FULL) $(DEV))

sbom: .venv-tools/done  ## dist/sbom-serve.json and dist/sbom-train.json: what is locked for the images, in CycloneDX
	@mkdir -p dist
	$(SBOM) $(SERVE) --outfile dist/sbom-serve.json
	$(SBOM) $(FULL) --outfile dist/sbom-train.json

format: .venv/dev  ## put the code into shape
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lambda: .venv/run  ## dist/lambda.zip, the function between Kinesis and the scorer
	$(BIN)/python -m infra.lambda_package

aws-local: .venv/dev  ## the profile aws, end to end, on a local server that speaks AWS's protocols
	$(BIN)/python -m infra.aws_local

up:  ## the whole stack on this machine: PostgreSQL, MLflow, API, worker, monitoring; trains first if it must
	@infra/make_env.sh
	@$(MAKE) --no-print-directory stack

# A make of its own, because the one before it read .env before it was whole.
stack:
	$(COMPOSE) --profile tools $(if $(IMAGE_REGISTRY),pull,build)
	@$(COMPOSE) run --rm train lineage >/dev/null 2>&1 || $(COMPOSE) run --rm train pipeline
	$(COMPOSE) up --detach --wait --wait-timeout 600

down:  ## stop the stack; what it knows stays in its volumes
	$(COMPOSE) down --remove-orphans

images:  ## the images fraud-train and fraud-serve of this commit; needs a Docker engine
	for target in train serve; do \
	    docker build --file modules/fraud_detection/Dockerfile --target $$target --tag fraud-$$target:local \
	        --build-arg GIT_COMMIT=$(GIT_COMMIT) . || exit 1; \
	done

push:  ## the images of this commit to ECR
	infra/ecr_push.sh

# The credentials of the workflow hold for an hour.
train-on-sagemaker: .venv/run  ## a training job from the latest snapshot in the bucket; costs money
	$(BIN)/python infra/start_sagemaker_training.py --module fraud_detection --wait --timeout 45m

tools: .venv-tools/done  ## .venv-tools: what looks at files and is no part of the program

monitoring-servers:  ## install what monitoring-test runs, on Debian and Ubuntu
	$(SUDO) apt-get update
	$(SUDO) apt-get install --yes --no-install-recommends prometheus prometheus-alertmanager prometheus-node-exporter

terraform-providers:  ## fetch the provider into var/terraform-providers, for infra-test
	terraform -chdir=terraform providers mirror $(CURDIR)/var/terraform-providers

lock:  ## resolve pyproject.toml anew into the hash-locked files; needs uv
	uv export --quiet --no-emit-project --no-header --no-annotate --no-default-groups -o requirements/serve.txt
	uv export --quiet --no-emit-project --no-header --no-annotate --no-default-groups --group train -o $(FULL)
	uv export --quiet --no-emit-project --no-header --no-annotate --no-default-groups --group train --group dev -o $(DEV)

clean:  ## remove the environment and everything that was made
	rm -rf .venv .venv-tools dist var .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache

.env:
	infra/make_env.sh

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -c 'import os, sysconfig; open(sysconfig.get_path("purelib") + "/mlops_platform.pth", "w").write(os.getcwd())'

.venv/run: .venv/bin/python $(FULL)
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes --requirement $(FULL)
	@touch $@

.venv/dev: .venv/run $(DEV)
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes --requirement $(DEV)
	@touch $@

.venv-tools/done: requirements/tools.txt
	$(PYTHON) -m venv .venv-tools
	$(TOOLS)/python -m pip install --quiet --no-deps --require-hashes --requirement requirements/tools.txt
	@touch $@
