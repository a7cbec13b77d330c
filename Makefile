# Everything starts here. `make help` lists the targets; each installs what it needs, says what it does, and may be run twice.
SHELL := /bin/bash
CLUSTER ?= local
PARTS ?= sandbox orchestrator soak
PY := .s1vl/venv/bin/python
PYTEST := $(PY) -m pytest

.DEFAULT_GOAL := help
.PHONY: help demo test test-unit test-component test-api test-e2e test-vllm bench lint format generate lock images cluster-up cluster-down cluster-status clean setup setup-cluster

help: ## List the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

setup:
	@hack/bootstrap.sh

setup-cluster:
	@hack/bootstrap.sh --cluster

demo: setup-cluster ## Cluster, chart, quickstart, and the model card's snippet answered about a picture (CLUSTER=local|current|kind)
	@$(PY) -m hack.demo --cluster $(CLUSTER)

test: setup-cluster ## Everything that passes without GPUs
	@$(PYTEST) tests

test-unit: setup ## Pure tests, seconds
	@$(PYTEST) tests/unit

test-component: setup ## Parts with real HTTP, kernels and an in-memory cluster
	@$(PYTEST) tests/component

test-api: setup-cluster ## Against a real kube-apiserver and etcd
	@$(PYTEST) tests/api

test-e2e: setup-cluster ## Against a whole cluster (CLUSTER=local|current|kind)
	@S1VL_CLUSTER=$(CLUSTER) $(PYTEST) tests/e2e

test-vllm: setup ## The engine's contract and whole jobs on a real vLLM, CPU build, tiny model (first time: minutes, 6 GiB)
	@$(PY) -m hack.vllm install
	@S1VL_TEST_ENGINE=vllm $(PYTEST) tests/engine

bench: $(if $(filter cluster,$(PARTS)),setup-cluster,setup) ## Measure; one JSON object a line (PARTS="sandbox orchestrator soak cluster"; the soak takes some minutes)
	@S1VL_CLUSTER=$(CLUSTER) $(PY) -m bench $(PARTS)

lint: setup ## ruff, mypy --strict, import-linter
	@$(PY) -m ruff format --check .
	@$(PY) -m ruff check .
	@$(PY) -m mypy
	@.s1vl/venv/bin/lint-imports --no-logo

format: setup ## Format and fix what ruff can
	@$(PY) -m ruff format .
	@$(PY) -m ruff check --fix .

generate: setup ## Write the CRD and the reference pages anew from the models
	@$(PY) -m s1vl_operator crd > charts/s1vl/files/crd.yaml
	@$(PY) -m s1vl_operator crd --format markdown > docs/crd.md
	@$(PY) -m s1vl_operator runbook docs/runbook

LOCK := .s1vl/venv/bin/uv pip compile -q --generate-hashes --no-emit-index-url --no-annotate --no-header --python-version 3.11 --python-platform x86_64-manylinux_2_28
lock: setup ## Pin the dependencies anew
	@.s1vl/venv/bin/pip -q install uv
	@$(LOCK) pyproject.toml --upgrade --extra dev -o requirements/dev.lock
	@$(LOCK) pyproject.toml --extra cli --extra operator --extra orchestrator -c requirements/dev.lock -o requirements/control.lock
	@$(LOCK) pyproject.toml --extra sandbox -c requirements/dev.lock -o requirements/sandbox.lock
	@$(LOCK) requirements/vllm.in --upgrade --override requirements/vllm.override -o requirements/vllm.lock

images: setup-cluster ## Build the images without a registry
	@$(PY) -m hack.images build

cluster-up: setup-cluster ## A real single-node Kubernetes on this machine
	@$(PY) -m hack.cluster up

cluster-down: ## Take it down and leave nothing behind
	@if [ -x $(PY) ]; then $(PY) -m hack.cluster down; else echo "Nothing to take down: there is no .s1vl/venv"; fi

cluster-status: ## Each component, its process and its health
	@$(PY) -m hack.cluster status

clean: cluster-down ## Remove all state of this checkout (the cache in the user's cache folder stays)
	@rm -rf .s1vl
