# `make` alone installs; `make demo` shows the lab at work; `make test` is what CI runs.
.DEFAULT_GOAL := install
SHELL := /bin/sh

# A python3.11 that only exists as a version manager's shim fails the probe and is passed over.
PYTHON ?= $(shell python3.11 -c 'print("python3.11")' 2>/dev/null || echo python3)
VENV := .venv
BIN := $(VENV)/bin
LOCK := deploy/requirements.lock
UV_VERSION := 0.13.9
TORCH := $(shell sed -n 's/^ *"\(torch==[^"]*\)".*/\1/p' pyproject.toml)
INT8 := $(shell sed -n 's/^int8 = \["\(torchao[^"]*\)".*/\1/p' pyproject.toml)
PYTEST := $(BIN)/python -m pytest
WORKERS ?= 2
# Each worker has one thread: more would wait for each other's processors.
PARALLEL := OMP_NUM_THREADS=1 $(PYTEST) -n $(WORKERS)

.PHONY: install demo up lint format test test-all test-int8 test-browser train-starter lock clean

install: $(VENV)/.installed

# uv checks every hash of the lock; pip then picks the build of torch that fits this machine.
# --no-config, because with pyproject's exclude-dependencies uv would leave torch out here too.
$(VENV)/.installed: pyproject.toml $(LOCK)
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' \
	  || { echo "Python 3.11 to 3.13 is needed: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check uv==$(UV_VERSION)
	$(BIN)/uv pip install -q --no-config --python $(BIN)/python --no-deps --require-hashes -r $(LOCK)
	$(BIN)/python -m pip install -q --disable-pip-version-check $(TORCH)
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	$(BIN)/python -m pip check
	@touch $@

demo: install
	$(BIN)/cf-lab demo

up: install
	$(BIN)/cf-lab up

train-starter: install
	$(BIN)/cf-lab starter train

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: lint
	$(PARALLEL) -m "not slow and not browser"

# Debian packages that single tests ask for; where they can't be had, those tests are skipped.
test-all: lint
	@if ! command -v link-parser >/dev/null 2>&1 && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then \
	  echo "installing link-grammar for the tests of grammar"; \
	  apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends \
	    link-grammar link-grammar-dictionaries-en >/dev/null; \
	fi
	$(PARALLEL) -m "not browser"
	$(MAKE) test-int8 test-browser

# torchao is in a folder of its own: diffusers would import it in every process that finds it.
test-int8: install
	$(BIN)/uv pip install -q --no-config --compile-bytecode --target $(VENV)/int8 --no-deps '$(INT8)'
	PYTHONPATH=$(VENV)/int8 $(PYTEST) -m int8

# Photographs of the UI are kept in the folder that CF_LAB_TEST_SCREENSHOTS names.
# Exit code 5 of pytest says that there is no such test, which is not a failure.
test-browser: install
	@if ! command -v chromium >/dev/null 2>&1 && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then \
	  echo "installing chromium for the browser tests"; \
	  apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends chromium >/dev/null; \
	fi
	@if command -v chromium >/dev/null 2>&1; then \
	  $(PYTEST) -m browser; code=$$?; [ $$code = 5 ] || exit $$code; \
	else \
	  echo "browser tests skipped: no chromium here, and only root on Debian can have it installed"; \
	fi

# For maintainers, after a change of pyproject.toml's dependencies. uv.lock records download
# addresses and is not kept; the exported file holds names, versions, markers and hashes only.
lock:
	test -x $(BIN)/uv || { $(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install -q uv==$(UV_VERSION); }
	$(BIN)/uv lock
	$(BIN)/uv export -q --frozen --all-groups --no-emit-project --no-annotate \
	  --format requirements-txt -o $(LOCK)
	@! grep -n -E '^(torch|nvidia-|triton)|://' $(LOCK)
	rm -f uv.lock

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
