PYTHON ?= python3
GPUS ?= 1
CONFIG ?= experiments/stage1.yaml
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
INSTALLED := $(VENV)/.installed
DEVICES = $(if $(filter 0,$(GPUS)),train.accelerator=cpu train.devices=1,train.accelerator=gpu train.devices=$(GPUS))

.DEFAULT_GOAL := help
.PHONY: help install demo stage1 smoke test test-all lint format type clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(INSTALLED)  ## set up .venv with the versions of requirements.txt (PYTHON=python3)

$(INSTALLED): requirements.txt setup.cfg
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install -r requirements.txt -e .
	@touch $@

demo: $(INSTALLED)  ## train and show the detector on synthetic shapes, in minutes on a CPU (ARGS="key=value ...")
	$(PY) scripts/demo.py $(ARGS)

stage1: $(INSTALLED)  ## train with text prompts (GPUS=8, 0: CPU; CONFIG=FILE; ARGS="data.root=DIR key=value ...")
	$(PY) scripts/train.py $(CONFIG) $(DEVICES) $(ARGS)

smoke: $(INSTALLED)  ## train, resume and evaluate a tiny model, in under a minute
	$(PY) scripts/smoke.py

test: $(INSTALLED)  ## run the fast tests (ARGS="-k boxes")
	$(PY) -m pytest -m "not slow" $(ARGS)

test-all: $(INSTALLED)  ## run all tests, those that train too
	$(PY) -m pytest $(ARGS)

lint: $(INSTALLED)  ## check style and formatting
	$(BIN)/ruff check
	$(BIN)/ruff format --check

format: $(INSTALLED)  ## mend what the linter can mend, and format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

type: $(INSTALLED)  ## check types
	$(BIN)/mypy

clean:  ## remove build outputs and caches; runs/ and .venv stay
	rm -rf build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache
	find src tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +
