# Everything happens in .venv; `make help` lists the targets.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.10; do \
	$$p -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
# What is imported is compiled then; compiling the whole of TensorFlow takes a minute.
INSTALL := -m pip install --quiet --disable-pip-version-check --no-compile
# A clone that was moved needs a new editable install, so the place is part of the stamp's name.
PLACE := $(shell pwd | cksum | cut -d' ' -f1)
RUN_READY := $(VENV)/.ready-run-$(PLACE)
TEST_READY := $(VENV)/.ready-test-$(PLACE)

# An environment of its own, on the oldest Python that is here; pyenv's names may lead nowhere, so each is tried.
LOWER := .venv-lower
LOWER_PYTHON = $(shell for p in python3.10 $(HOME)/.pyenv/versions/3.10*/bin/python $(PYTHON); do \
	$$p -c '' 2>/dev/null && echo $$p && break; done)
LOWER_READY := $(LOWER)/.ready-$(PLACE)

# Values reach the shell as quoted variables, so that spaces in them are safe.
export LOGS PORT DATA DATA_PATH RECIPE TRIALS EPOCHS BATCH LR OBJECTIVE SEED OUT SEARCH SPACE FOLDS REPEATS KEEP \
	DEVICE WORKERS
TUNE_OPTIONS = $(if $(DATA),--data "$$DATA") $(if $(DATA_PATH),--data-path "$$DATA_PATH") \
	$(if $(RECIPE),--recipe "$$RECIPE") $(if $(TRIALS),--trials "$$TRIALS") \
	$(if $(EPOCHS),--epochs "$$EPOCHS") $(if $(BATCH),--batch-size "$$BATCH") \
	$(if $(LR),--learning-rate "$$LR") $(if $(OBJECTIVE),--objective "$$OBJECTIVE") \
	$(if $(SEED),--seed "$$SEED") $(if $(OUT),--out "$$OUT") $(if $(OVERWRITE),--overwrite) \
	$(if $(SEARCH),--search "$$SEARCH") $(if $(SPACE),--space "$$SPACE") $(foreach one,$(SET),--set '$(one)') \
	$(if $(FOLDS),--folds "$$FOLDS") $(if $(REPEATS),--repeats "$$REPEATS") $(if $(KEEP),--keep "$$KEEP") \
	$(if $(PRUNE),--prune) $(if $(DEVICE),--device "$$DEVICE") $(if $(WORKERS),--workers "$$WORKERS")

.PHONY: help tune doctor gpu-check tensorboard test test-slow lint types check wheel-test lower-env \
	lower-bounds zoo-gate bench clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | column -t -s'|' 2>/dev/null || grep '##' Makefile
	@echo "  make tune takes DATA RECIPE TRIALS EPOCHS BATCH LR OBJECTIVE SEED OUT DATA_PATH OVERWRITE=1,"
	@echo "  SEARCH SPACE SET FOLDS REPEATS KEEP DEVICE WORKERS and PRUNE=1, such as"
	@echo "  make tune DATA=wine TRIALS=24 EPOCHS=30 BATCH=32 SEED=1 OUT=runs/wine"
	@echo "  make tune SPACE=wide SET='dropout=0:0.5 units=choice:64-32,128-64' PRUNE=1 OUT=runs/wide"

tune: $(RUN_READY)  ## random search over the learning rate; results in runs/tune
	@$(BIN)/keras-practice tune $(TUNE_OPTIONS)

tensorboard: $(RUN_READY)  ## TensorBoard over the folder LOGS (default: runs), for this machine alone
	@$(BIN)/python -m tensorboard.main --logdir "$${LOGS:-runs}" --host 127.0.0.1 --port "$${PORT:-6006}"

test: $(TEST_READY)  ## the fast tests
	$(BIN)/python -m pytest -n auto --dist loadfile -m "not slow"

test-slow: $(TEST_READY)  ## the slow tests
	$(BIN)/python -m pytest -n auto --dist loadfile -m slow

doctor: $(RUN_READY)  ## versions, devices, driver and CUDA libraries, and why a GPU is not seen
	@$(BIN)/keras-practice doctor $(if $(DEVICE),--device "$$DEVICE")

gpu-check: $(RUN_READY)  ## on a GPU: trains every recipe there and checks it; error 3 without one
	@$(BIN)/keras-practice gpu-check

lint: $(TEST_READY)  ## ruff: lint and format
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .

types: $(TEST_READY)  ## mypy, strict
	@rm -rf build/typing && mkdir -p build/typing/keras_practice
	@sed -n 's/^    keras_practice\.\([a-z_]*\) = /\1 /p' setup.cfg | while read -r name folder; do \
		ln -s "../../../$$folder" "build/typing/keras_practice/$$name"; done
	@for file in package/*.py package/py.typed; do ln -s "../../../$$file" build/typing/keras_practice/; done
	$(BIN)/python -m mypy -p keras_practice

check: lint types test  ## lint, types and the fast tests

wheel-test: $(RUN_READY)  ## build the wheel and try it in a fresh environment elsewhere
	PYTHON="$(PYTHON)" sh tests/package/wheel_smoke.sh

lower-bounds: $(LOWER_READY)  ## the fast tests of four rooms with the oldest versions that setup.cfg allows
	@# Old packages warn of each other: what they say of deprecation is no news of this one.
	$(LOWER)/bin/python -m pytest -n auto --dist loadfile -m "not slow" -W ignore::DeprecationWarning \
		tests/core tests/data tests/recipes tests/callbacks

lower-env: $(LOWER_READY)

zoo-gate: $(RUN_READY)  ## a quick part of the fault zoo: no verdict may be worse than on record
	$(BIN)/python benchmarks/fault_zoo.py --gate benchmarks/zoo/verdicts.json --jobs 2

bench: $(RUN_READY)  ## the README's figures, measured again beside those on record; ONLY="xor iris", WRITE=1
	@$(BIN)/python benchmarks/run.py $(ONLY) $(if $(WRITE),--write) $(if $(DATA_PATH),--data "$$DATA_PATH")

clean:  ## remove the environment and what was built
	rm -rf $(VENV) $(LOWER) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "error: Python 3.10 to 3.13 is needed (TensorFlow has no builds for others). Got `python3 --version 2>&1`." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(RUN_READY): setup.cfg pyproject.toml | $(BIN)/python
	$(BIN)/python $(INSTALL) -e .
	@touch $@

$(TEST_READY): setup.cfg pyproject.toml | $(BIN)/python
	$(BIN)/python $(INSTALL) -e ".[test,dev]"
	@touch $(RUN_READY) $@

$(LOWER_READY): setup.cfg pyproject.toml tests/package/lower_bounds.py | $(BIN)/python
	@$(LOWER_PYTHON) -c 'import sys; v = sys.version_info; print("lower bounds: on Python %d.%d.%d" % v[:3], \
		"" if v[:2] == (3, 10) else "(there is no 3.10 here)")'
	$(LOWER_PYTHON) -m venv --clear $(LOWER)
	$(BIN)/python tests/package/lower_bounds.py > $(LOWER)/oldest.txt
	$(LOWER)/bin/python $(INSTALL) -r $(LOWER)/oldest.txt \
		"pytest>=8" "pytest-xdist>=3.5" "hypothesis>=6.100"
	$(LOWER)/bin/python $(INSTALL) --no-deps -e .
	@touch $@
