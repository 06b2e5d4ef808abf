# The two commands of the README are `make demo` and `make test`; both set up .venv by themselves.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# An installed libtpu would make an ordinary CPU run look for a TPU; set JAX_PLATFORMS= to use what the machine has.
export JAX_PLATFORMS ?= cpu
# Large pages for the large buffers of a training step on CPU: about a fifth faster. Other C libraries ignore it.
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1

.PHONY: help demo test fast parity check format lint types docs clean

help:
	@echo "make demo    train, evaluate and draw the built-in scenes (runs/demo/)"
	@echo "make test    all tests"
	@echo "make fast    the tests that take under a minute"
	@echo "make check   format, lint, types, tests: what CI runs"
	@echo "make parity  the same networks, losses and gradients as torchvision's: installs torch beside it,"
	@echo "             writes what it measured to docs/parity.md"
	@echo "make docs    the documentation into site/"

$(VENV)/pyvenv.cfg:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is older than 3.11: make PYTHON=python3.12 ..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/pyvenv.cfg requirements.txt pyproject.toml
	$(BIN)/python -m pip install --quiet --no-compile --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --no-compile --editable '.[dev]'
	@touch $@

# Kept from step to step, those buffers need not be asked for anew: about a tenth faster still.
$(VENV)/.installed-parity: $(VENV)/.installed-dev requirements-parity.txt
	$(BIN)/python -m pip install --quiet --no-compile -r requirements-parity.txt
	$(BIN)/python -m pip install --quiet --no-compile --no-deps torchvision==0.28.0
	@touch $@

demo: export GLIBC_TUNABLES := $(GLIBC_TUNABLES):glibc.malloc.arena_max=1:glibc.malloc.mmap_threshold=40000000000:glibc.malloc.trim_threshold=40000000000
demo: $(VENV)/.installed
	$(BIN)/ylosia train configs/ylosia_n_scenes.py --workdir runs/demo
	@echo "pictures: runs/demo/predictions/"

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

parity: export YLOSIA_PARITY := $(CURDIR)/.parity/measured.csv
parity: $(VENV)/.installed-parity
	rm -rf .parity && mkdir .parity
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "" tests/parity
	$(BIN)/python tests/parity/table.py $(YLOSIA_PARITY) docs/parity.md

fast: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n 2 -m "not slow and not full"

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.installed-dev
	$(BIN)/pyright --pythonpath $(BIN)/python

check: lint types test

docs: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	$(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) site .pytest_cache .ruff_cache
