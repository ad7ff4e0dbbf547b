# Two commands matter: `make book` and `make test`. Each sets up what is missing.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help book test graders status labs record weights lint format lock clean distclean

# On a busy machine OpenMP's threads else spin at every barrier, and small models crawl.
export OMP_WAIT_POLICY ?= PASSIVE

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
GRADERS := $(VENV)/graders
EXTRAS := book,test,dev
TESTERS := 2

# The first interpreter that is new enough; `make PYTHON=... book` chooses another.
PYTHON ?= $(firstword $(foreach python,python3 python3.11 python3.12 python3.13,$(shell \
	$(python) -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 \
	&& echo $(python))))

# What a chapter's outputs rest on besides its own text: code, weights, measurements, records,
# and which model is asked for. The runs of one model are never shown as another's.
SOURCES := $(shell find nbhelpers book/nblabs -name '*.py' 2>/dev/null) $(wildcard book/recorded/*.ipynb) \
	$(shell find data -name '*.safetensors' -o -name meta.json -o -name results.json \
		-o -path 'data/results/*.json' \
		-o -path 'data/benchmarks/*.json' ! -name chapters.json 2>/dev/null)
MODEL := $(shell printf '%s' "$${NBHELPERS_MODEL:-stickers}" | tr -c '[:alnum:].' '-')
RUNS := book/_build/.runs-of-$(MODEL)

help:  ## say what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or newer was found; install one, or name it: make PYTHON=/path/to/python3.11"; exit 1; }
	"$(PYTHON)" -m venv $(VENV)

$(READY): pyproject.toml requirements.lock | $(BIN)/python
	@echo "installing the locked dependencies into $(VENV): one to ten minutes"
	$(BIN)/python -m pip install --quiet --constraint requirements.lock --editable '.[$(EXTRAS)]'
	@touch $@

$(RUNS): $(SOURCES)
	@rm -rf book/_build
	@mkdir -p book/_build
	@touch $@

book: $(READY) $(RUNS)  ## run the chapters and build the site: book/_build/html/index.html
	@mkdir -p book/_build/.ipython
	@test ! -d book/recorded || $(BIN)/python -m book.tools.record show
	@rm -rf book/_build/wheel
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir book/_build/wheel .
	JUPYTER_PREFER_ENV_PATH=1 IPYTHONDIR="$(CURDIR)/book/_build/.ipython" TQDM_DISABLE=1 \
		$(BIN)/jupyter-book build --all -W --keep-going book
	@rm -f book/_build/html/_static/*/*.map  # of the theme's sources, which no reader needs

# A file's tests stay together, since they share what is costly to make; the files go in order,
# so that no long one is left for the end.
test: $(READY)  ## run the tests and the docstrings' examples, in TESTERS processes
	$(BIN)/python -m pytest --numprocesses $(TESTERS) --dist loadfile --no-loadscope-reorder

# Their environment sees what the other holds and has only what is theirs. The name of the file
# that says so comes first: the editable install's needs what the other holds.
$(GRADERS)/.ready: $(READY)
	$(BIN)/python -m venv --clear $(GRADERS)
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
		> "$$(echo $(GRADERS)/lib/python3*/site-packages)/0-project.pth"
	$(GRADERS)/bin/python -m pip install --quiet --no-build-isolation --editable '.[graders]'
	@touch $@

graders: $(GRADERS)/.ready  ## install nbgrader and otter-grader, for the tests that run them

status: $(READY)  ## run each chapter alone and note its seconds and memory
	$(BIN)/python -m book.tools.measure

labs: $(READY)  ## make the labs' notebooks and run them: build/labs
	$(BIN)/python -m book.tools.notebooks

record: $(READY)  ## run the chapters with NBHELPERS_MODEL, on a GPU box, and keep what they show
	$(BIN)/python -m book.tools.record make

# The models go to build/stickers/models; OUT=data/stickers replaces the shipped ones instead.
# QUICK=1 takes a few steps of everything, into build/quick. The parser is trained where TREEBANKS
# names the folder of its treebanks; DEVICE=cuda trains the rest on a GPU.
QUICK :=
DEVICE := cpu
OUT :=
TREEBANKS :=
WORK := build/$(if $(QUICK),quick,stickers)
weights: $(READY)  ## draw the training pictures, train every model from a seed: build/stickers
	PYTHONPATH="$(CURDIR):$(CURDIR)/data" $(BIN)/python -m recipe train --device $(DEVICE) \
		--work "$(WORK)" $(if $(OUT),--out "$(OUT)") $(if $(QUICK),--quick) \
		$(if $(TREEBANKS),--treebanks "$(TREEBANKS)")

lint: $(READY)  ## ruff and mypy, as pinned in pyproject.toml
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)  ## let ruff lay the code out
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(READY)  ## write requirements.lock anew from pyproject.toml
	$(BIN)/python -m pip install --quiet --constraint requirements.lock --editable '.[lock]'
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-annotate \
		--extra book --extra lab --extra parser-en --extra ray --extra test --extra dev \
		--extra lock \
		--custom-compile-command "make lock" --output-file requirements.lock pyproject.toml

clean:  ## remove what was built, keep the environment
	rm -rf book/_build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +

distclean: clean  ## remove the environment too
	rm -rf $(VENV)
