PYTHON ?= python3
DATA ?= ../shared/data/oec

.DEFAULT_GOAL := help
.PHONY: help install system-packages perf-analyzer demo demo-bundle test lint format

# What the tests run that only a distribution carries: redis-server, promtool, a library of perf_analyzer.
SYSTEM_PACKAGES := redis-server prometheus libb64-0d

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: .venv/.installed  ## .venv with everything, for development

system-packages:  ## Debian's packages that the tests run beside Python's (needs root)
	dpkg -s $(SYSTEM_PACKAGES) >/dev/null 2>&1 || { apt-get -qq update && \
	  DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $(SYSTEM_PACKAGES); }

perf-analyzer: install  ## the load generator of the server benchmark, where none is on PATH
	.venv/bin/adprior bench server --fetch-perf-analyzer

demo: .demo-venv/.installed  ## the shipped model on a real tritonserver, in a small environment
	.demo-venv/bin/python demo/demo.py

demo-bundle: install  ## train and build the shipped bundle again, from the data set in DATA
	PATH="$(CURDIR)/.venv/bin:$$PATH" demo/make_bundle.sh "$(DATA)"

test: lint  ## lint, types and all tests
	.venv/bin/python -m pytest

lint: install  ## style and types
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/hadolint deploy/Dockerfile
	.venv/bin/check-jsonschema --quiet --builtin-schema vendor.compose-spec deploy/compose.yaml

format: install  ## put the code in order
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

# Everything in one pip call: asked for one after another, a later package brings NumPy 2.
.venv/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' || \
	  { echo "adprior needs Python 3.11 or 3.12: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

# Not editable: the demo runs what a user installs. Its own code is looked at, so that a change is seen.
.demo-venv/.installed: pyproject.toml $(shell find runtime build clients model_repository -name '*.py' -o -name '*.pbtxt')
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' || \
	  { echo "adprior needs Python 3.11 or 3.12: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .demo-venv
	.demo-venv/bin/python -m pip install --quiet --disable-pip-version-check '.[embedded,client]'
	@touch $@
