PYTHON ?= python3
GPUS ?= 1
NODES ?= $(shell expr $(GPUS) / 8 \| 1)
ARGS ?=
JOBS ?= 2

VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
INSTALLED := $(VENV)/.installed
ifeq ($(GPUS),0)
DEVICES := train.accelerator=cpu train.devices=1 train.nodes=1
else
DEVICES = train.accelerator=gpu train.devices=$(PER_NODE) train.nodes=$(NODES)
PER_NODE = $(if $(filter 0,$(shell expr $(GPUS) % $(NODES))),$(shell expr $(GPUS) / $(NODES)),$(error \
	GPUS=$(GPUS) is not a multiple of NODES=$(NODES)))
endif

.DEFAULT_GOAL := help
.PHONY: help install demo stage1 stage2 preflight verify-official ablation-prompts ablation-fusion ablation-full bench bench-gpu bench-memory smoke test test-ci test-all mutants lint format type clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(INSTALLED)  ## set up .venv with the versions of requirements.txt (PYTHON=python3)

$(INSTALLED): requirements.txt setup.cfg
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install -r requirements.txt -e .
	@touch $@

demo: $(INSTALLED)  ## train and show the detector on synthetic shapes, in minutes on a CPU (ARGS="key=value ...")
	$(PY) scripts/demo.py $(ARGS)

stage1: CONFIG ?= experiments/stage1.yaml
stage1: $(INSTALLED)  ## train with text prompts (GPUS=8, 0: CPU; NODES=; CONFIG=FILE; ARGS="data.root=DIR key=value ...")
	$(PY) scripts/train.py $(CONFIG) $(DEVICES) $(ARGS)

stage2: CONFIG ?= experiments/stage2.yaml
stage2: $(INSTALLED)  ## go on with visual prompts from stage 1, or from CKPT=FILE; all else as stage1
	$(PY) scripts/train.py $(CONFIG) $(DEVICES) $(if $(CKPT),train.init_from=$(CKPT)) $(ARGS)

preflight: CONFIG ?= experiments/stage1.yaml
preflight: $(INSTALLED)  ## try a run before it takes days: memory, speed, loader, disk; all as stage1, and ARGS="--steps 20"
	$(PY) scripts/preflight.py $(CONFIG) $(DEVICES) $(if $(CKPT),train.init_from=$(CKPT)) $(ARGS)

verify-official: $(INSTALLED)  ## evaluate published Grounding DINO weights on COCO beside their published AP (COCO=DIR; ARGS="--model NAME")
	$(PY) scripts/verify_official.py data.root=$(or $(COCO),$(error say where COCO is: make verify-official COCO=DIR)) $(ARGS)

ablation-prompts: $(INSTALLED)  ## compare ideas for stage 2, in hours on a CPU (ARGS="--screen": in 400 steps each)
	$(PY) scripts/ablation_prompts.py $(ARGS)

ablation-fusion: $(INSTALLED)  ## compare early and late fusion, phrases and words, in 80 minutes on a CPU (ARGS="--quick": in some)
	$(PY) scripts/ablation_fusion.py $(ARGS)

ablation-full: $(INSTALLED)  ## the same at full size, in two stages (GPUS=8; ARGS="data.root=DIR", "--dry-run data.root=DIR": print it)
	$(PY) scripts/ablation_full.py $(DEVICES) $(ARGS)

bench: $(INSTALLED)  ## measure speed beside other implementations, in half an hour (ARGS=--start-up: of commands alone, in minutes; so --onnx, --labelling, --exemplars)
	$(PY) scripts/bench.py $(ARGS)

bench-gpu: $(INSTALLED)  ## measure speed and memory on a GPU, in minutes (ARGS=--compiled: the second part of the page)
	$(PY) scripts/bench_gpu.py $(ARGS)

bench-memory: $(INSTALLED)  ## count what training takes of a GPU's memory, without a GPU, in five minutes
	$(PY) scripts/bench_memory.py $(ARGS)

smoke: $(INSTALLED)  ## train, resume and evaluate a tiny model, in under a minute
	$(PY) scripts/smoke.py

# A file's tests stay in one process; more than one thread each would make them wait for one another.
PYTEST = OMP_NUM_THREADS=1 $(PY) -m pytest -n $(JOBS) --dist loadfile

test: $(INSTALLED)  ## run the fast tests (ARGS="-k boxes", JOBS=2 processes)
	$(PYTEST) -m "not slow and not ci" $(ARGS)

test-ci: $(INSTALLED)  ## run what CI holds beyond the fast tests: several processes
	$(PYTEST) -m "ci and not slow" $(ARGS)

test-all: $(INSTALLED)  ## run all tests, those that train too
	$(PY) -m pytest $(ARGS)

mutants: $(INSTALLED)  ## break the code in small ways that the tests must notice, in half an hour (ARGS="losses --jobs 4")
	$(PY) tests/mutants/mutants.py $(ARGS)

lint: $(INSTALLED)  ## check style and formatting
	$(BIN)/ruff check
	$(BIN)/ruff format --check

format: $(INSTALLED)  ## mend what the linter can mend, and format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

type: $(INSTALLED)  ## check types
	$(BIN)/mypy

.PHONY: docs
docs: $(INSTALLED)  ## write what the documents show of the code
	$(PY) tests/docs/generated.py

clean:  ## remove build outputs and caches; runs/ and .venv stay
	rm -rf build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache
	find src tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +
