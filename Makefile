# `make run` and `make test` set everything up themselves; a second call starts at once.
PYTHON ?= $(shell command -v python3.11 || command -v python3 || command -v python)
BIN := .venv/bin
READY := .venv/ready
PIP := --disable-pip-version-check -qq
# Tests wait for processes and disks a lot: two at a time, whatever the machine. Those of a file share
# what takes minutes to make, so slow ones go file by file.
BESIDE := -n 2 --dist worksteal
FILES_BESIDE := -n 2 --dist loadfile
CI_DIR := $(dir $(abspath $(lastword $(MAKEFILE_LIST)))).ci/
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: run retrain services repro test test-services check lint types imports install lock clean help

run: $(READY) ## compare methods as params.yaml says: report, MLflow runs, registered models
	@$(BIN)/python -m pipelines.compare

retrain: $(READY) ## take in new data, run what follows from it, promote, push and commit the results
	@$(BIN)/python -m pipelines.retrain

services: $(READY) ## Prefect's server and worker and MLflow's server on loopback, until Ctrl-C
	@$(BIN)/python -m pipelines.services

repro: $(READY) ## the same without Prefect, one stage after the other
	@$(BIN)/tunetrail mend && $(BIN)/dvc repro && $(BIN)/tunetrail sync

test: $(READY) check ## every test but test-services: fast ones first, then the pipeline on the real model
	@$(BIN)/python -m pytest tests -m "not pipeline and not services" $(BESIDE)
	@$(BIN)/python -m pytest tests -m "pipeline and not services" $(FILES_BESIDE)

test-services: $(READY) ## tests with Chromium, PostgreSQL, sshd, faketime; installs them from Debian's packages
	@tests/services/install.sh
	@$(BIN)/python -m pytest tests -m services $(FILES_BESIDE)

check: lint types imports ## formatting, lint, types, layers

lint: $(READY)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(READY)
	@$(BIN)/mypy

imports: $(READY)
	@$(BIN)/lint-imports

lock: ## write requirements.lock from what is installed now
	@{ echo "# Exact versions that run together. Written by \`make lock\`."; \
	   $(BIN)/pip freeze --exclude-editable | sed '/^#/d; s/+cpu$$//'; } > requirements.lock

clean: ## remove results and databases (downloads and the environment stay)
	rm -rf models plan runs comparison receipt.json data/canonical data/validated data/prepared \
	  .tunetrail .dvc/cache .dvc/tmp dvc.lock

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 15

include $(CI_DIR)targets.mk

# One make at a time installs, where the system has flock; another waits, and then has nothing to do.
$(READY): requirements.lock pyproject.toml
	@mkdir -p .tunetrail; exec 9> .tunetrail/install.lock; \
	  ! command -v flock > /dev/null || flock -n 9 \
	  || { echo "Another make is installing .venv: waiting for it."; flock 9; }; \
	  [ $(READY) -nt requirements.lock ] && [ $(READY) -nt pyproject.toml ] \
	  || $(MAKE) --no-print-directory install

# torch comes by plain pip like the rest, so that whatever wheel the machine offers is taken.
install:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11, 4))' \
	  || { echo "error: Python 3.11.4 or later is needed; set PYTHON=/path/to/python3.11"; exit 2; }
	@echo "Installing the environment into .venv: a few minutes, once."
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install $(PIP) -r requirements.lock
	@$(BIN)/python -m pip install $(PIP) --no-deps --no-build-isolation -e .
	@$(BIN)/python -c 'from tunetrail.repository import allow_missing_git; allow_missing_git()'
	@touch $(READY)
