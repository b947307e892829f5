# `make` lists the targets. Each does its own set-up; a stamp in .venv makes the second start immediate.
override VENV := .venv
BIN := $(VENV)/bin
JOBS ?= 2
export PYTHON TORCH TORCH_INDEX

SETUP_INPUTS := setup.py setup.cfg package.xml Makefile tools/setup.sh
DEMO_READY := $(VENV)/.ready-demo
TEST_READY := $(VENV)/.ready-test
# The test environment contains the demo's.
ANY_READY := $(if $(wildcard $(TEST_READY)),$(TEST_READY),$(DEMO_READY))

.DEFAULT_GOAL := help
.PHONY: help setup test demo results lint type format wheel clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  PYTHON=... interpreter, TORCH_INDEX=... package index for torch, JOBS=... test processes"

demo: $(ANY_READY)  ## train, evaluate, film an arm and a quadrotor, deploy the arm's policy; writes demo/report.html
	@$(BIN)/robolearn demo out=demo

test: $(TEST_READY) lint type  ## format, lint, types and all tests that this machine can run
	@$(BIN)/pytest -q -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

results: $(TEST_READY)  ## train and evaluate every seed of the result tables; continues where it stopped
	@$(BIN)/python -m benchmarks.results $(ARGS)

setup: $(TEST_READY)  ## only the environment for development
	@echo "ready: $(VENV)"

lint: $(TEST_READY)  ## formatting and lint, nothing is changed
	@$(BIN)/ruff format --check --quiet . || { echo "formatting differs: make format"; exit 1; }
	@$(BIN)/ruff check --quiet .

type: $(TEST_READY)  ## static types
	@$(BIN)/mypy --no-error-summary

format: $(TEST_READY)  ## rewrite formatting and the lint findings that have a safe fix
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format .

wheel: $(TEST_READY)  ## dist/*.whl and the source archive
	@rm -rf build && $(BIN)/python -m build --outdir dist .

clean:  ## remove what can be made again, the environment too
	rm -rf $(VENV) .setup.log build dist demo *.egg-info .mypy_cache .pytest_cache .ruff_cache

# The old stamp goes first: an interrupted set-up must not look complete.
$(DEMO_READY): EXTRAS := mujoco,bullet,flight,report,export,ros
# What has to be compiled may fail: its tests are then skipped, and say so.
$(TEST_READY): COMPILED := betaflight
# And a Debian package that may not be installed: the tests of the operator's page need a browser.
$(TEST_READY): BROWSER := chromium
$(TEST_READY): EXTRAS := mujoco,bullet,flight,report,export,ros,vision,data,diffusion,distributed,teleop,page,dev
$(DEMO_READY) $(TEST_READY): $(SETUP_INPUTS)
	@rm -f $(DEMO_READY) $(TEST_READY)
	@tools/setup.sh install $(EXTRAS) "$(COMPILED)" "$(BROWSER)"
	@touch $@
