PYTHON ?= python3
DATA ?= ../shared/data/oec
SHELL := /bin/bash

.DEFAULT_GOAL := help
.PHONY: help install lock system-packages perf-analyzer demo demo-bundle test test-all test-latest \
  test-faults test-bulk lint format

PYTHON_VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
# Exact versions of everything that these targets and deploy/Dockerfile install. `make lock` resolves
# them anew; nothing else changes them.
LOCK := locks/python$(PYTHON_VERSION).txt
# An older pip takes the first also for what builds a package, a newer one takes the second.
LOCKED := PIP_CONSTRAINT=$(LOCK) PIP_BUILD_CONSTRAINT=$(LOCK)

# What the tests run that only a distribution carries: redis-server, promtool, a library of perf_analyzer.
SYSTEM_PACKAGES := redis-server prometheus libb64-0d

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: .venv/.installed  ## .venv with everything, for development

# In an environment of its own: the lock can be made anew where the present one cannot be installed.
lock:  ## resolve locks/ anew, to the newest versions that pyproject.toml admits
	@scratch=$$(mktemp -d) && trap 'rm -rf "$$scratch"' EXIT && $(PYTHON) -m venv "$$scratch" && \
	"$$scratch/bin/python" -m pip install --quiet --disable-pip-version-check uv && \
	for lock in dev:3.11:python3.11 dev:3.12:python3.12 gpu:3.12:gpu_image; do \
	  IFS=: read -r extra version name <<<"$$lock"; \
	  echo hatchling | "$$scratch/bin/uv" pip compile --quiet --upgrade --no-annotate \
	    --custom-compile-command 'make lock' --python-version "$$version" \
	    --python-platform x86_64-manylinux_2_35 --extra "$$extra" \
	    --output-file "locks/$$name.txt" pyproject.toml - && echo "locks/$$name.txt" || exit 1; \
	done

system-packages:  ## Debian's packages that the tests run beside Python's (needs root)
	dpkg -s $(SYSTEM_PACKAGES) >/dev/null 2>&1 || { apt-get -qq update && \
	  DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $(SYSTEM_PACKAGES); }

perf-analyzer: install  ## the load generator of the server benchmark, where none is on PATH
	.venv/bin/adprior bench server --fetch-perf-analyzer

demo: .demo-venv/.installed  ## the shipped model on a real tritonserver, in a small environment
	.demo-venv/bin/python demo/demo.py

demo-bundle: install  ## train and build the shipped bundle again, from the data set in DATA
	PATH="$(CURDIR)/.venv/bin:$$PATH" demo/make_bundle.sh "$(DATA)"

# Two at a time, each file in one process: the files share servers and models. The long ones begin.
PYTEST = .venv/bin/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

test: lint  ## lint, types and the tests (10 min on 2 cores)
	$(PYTEST)

test-all: lint  ## the same, long forms too
	$(PYTEST) --long

test-latest:  ## the tests on the newest versions that pyproject.toml admits, in an environment of its own
	@$(CHECK_PYTHON)
	rm -rf .latest-venv
	$(PYTHON) -m venv .latest-venv
	.latest-venv/bin/python -m pip install --quiet --disable-pip-version-check --upgrade --upgrade-strategy eager -e '.[dev]'
	$(PYTEST:.venv%=.latest-venv%)

test-faults: install  ## every fault on real processes, timed: docs/faults.md (40 min)
	.venv/bin/python -m pytest tests/faults --long --faults-report faults.json

BULK_INPUTS = --bundle demo/bundle --columns demo/columns.toml \
  --events "$(DATA)/events.parquet" --profiles "$(DATA)/profiles.parquet" --as-of 2022-09-01

test-bulk: install  ## adprior bulk on all users in DATA: against the server, killed 20 times; publish and Redis too
	scratch=$$(mktemp -d) && trap 'rm -rf "$$scratch"' EXIT && export PYTHONPATH=tests && \
	  .venv/bin/python -m integration.bulk_equality $(BULK_INPUTS) --scratch "$$scratch/equality" && \
	  .venv/bin/python -m integration.bulk_kills $(BULK_INPUTS) --kills 20 --scratch "$$scratch/kills" && \
	  .venv/bin/python -m integration.publish_kills --kills 20 --scratch "$$scratch/publish"

lint: install  ## style and types
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/hadolint deploy/Dockerfile
	.venv/bin/check-jsonschema --quiet --builtin-schema vendor.compose-spec deploy/compose.yaml
	@if command -v promtool >/dev/null; then promtool check config deploy/prometheus/prometheus.yml; \
	  else echo "promtool is not here: the alert rules are not checked (make system-packages)"; fi

format: install  ## put the code in order
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

CHECK_PYTHON = test -f $(LOCK) || \
  { echo "adprior needs Python 3.11 or 3.12, $(PYTHON) is $(PYTHON_VERSION): make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }

# Everything in one pip call: asked for one after another, a later package brings NumPy 2.
.venv/.installed: pyproject.toml $(wildcard $(LOCK))
	@$(CHECK_PYTHON)
	$(PYTHON) -m venv .venv
	$(LOCKED) .venv/bin/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

# Not editable: the demo runs what a user installs. Its own code is looked at, so that a change is seen.
.demo-venv/.installed: pyproject.toml $(wildcard $(LOCK)) $(shell find runtime build clients bulk -name '*.py')
	@$(CHECK_PYTHON)
	$(PYTHON) -m venv .demo-venv
	$(LOCKED) .demo-venv/bin/python -m pip install --quiet --disable-pip-version-check '.[embedded,client]'
	@touch $@
