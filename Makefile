# Two commands on a fresh machine that has Python 3.11 or later and make: `make repro` and `make test`.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
# The torch build: cpu or cuda. Their bits differ, so each has a lock of its own.
TORCH ?= cpu
VENV ?= .venv
INSTALLED := $(VENV)/.installed-$(TORCH)

export PATH := $(abspath $(VENV))/bin:$(PATH)
# A user-wide PYTHONPATH would put other versions before the locked ones.
unexport PYTHONPATH

.PHONY: help setup repro test test-slow lint bench goldens docs lock
.DELETE_ON_ERROR:

help:
	@echo "make repro      set up, then run the whole DAG on the embedded corpus"
	@echo "make test       set up, then run all tests and checks"
	@echo "make test-slow  the long tests: many kills, large inputs"
	@echo "make lint       ruff, mypy, import rules"
	@echo "make bench      measure; each script ends with one JSON line"
	@echo "make goldens    write the golden digests anew (raise the component's version first)"
	@echo "make docs       write the pages that follow from the code, and the site"
	@echo "make lock       resolve the dependencies again (UPGRADE=1: at their newest versions)"
	@echo "TORCH=cuda      use the CUDA build of torch"

setup: $(INSTALLED)

$(INSTALLED): requirements.lock requirements.torch-$(TORCH).lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "error: no python3 found: install Python 3.11 or later" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: $(PYTHON) is older than Python 3.11: set PYTHON=/path/to/python3.11" >&2; exit 2; }
	@echo "Setting up $(VENV) with $(PYTHON), torch build $(TORCH): a few minutes the first time"
	@$(PYTHON) -m venv $(VENV)
	@rm -f $(VENV)/.installed-*
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock -r requirements.torch-$(TORCH).lock \
		|| { echo "error: the locked packages cannot be installed (see above); if it is torch: let pip find the +cpu wheel for this Python (PIP_EXTRA_INDEX_URL or PIP_FIND_LINKS), or use TORCH=cuda" >&2; exit 2; }
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

repro: setup
	@test -e .git || dvc config --local core.no_scm true
	@dvc repro
	@echo "The model is in artifacts/model: AutoModelForCausalLM.from_pretrained('artifacts/model') loads it."
	@echo "Look at artifacts/report/report.html."

test: setup lint
	@python -m pytest -q -m "not slow" --numprocesses auto --maxprocesses 4 --dist loadfile

test-slow: setup
	@python -m pytest -q -m slow

lint: setup
	@ruff check . && ruff format --check .
	@mypy
	@lint-imports

bench: setup
	@for script in bench/*.py; do python $$script || exit 1; done

goldens: setup
	@CAIRN_WRITE_GOLDENS=1 python -m pytest -q -m golden

docs: setup
	@python tools/reference.py
	@NO_MKDOCS_2_WARNING=1 mkdocs build --strict --quiet

lock: setup
	@python -m pip install --quiet uv
	@python tools/lock.py $(if $(UPGRADE),--upgrade)
