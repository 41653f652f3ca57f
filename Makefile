# make setup   the environment, in .venv
# make test    the environment, style, types, the site, all tests
# make docs    the site of docs/, the README and the API, in site/; a dead link fails
# make notebook  runs docs/python.md and keeps what it shows
# make lowest  the tests with the oldest versions that pyproject.toml admits, in .lowest
# make dist    source distribution and wheel, in dist
# make mutants small errors in some modules: which do their tests find?
# make fuzz    20,000 damaged files of every format that is read
# make torture  kills and failing writes in every command: is anything lost?
# make schemathesis  requests made of the service's description; make load: 5,000 mixed ones
# make demo    scenes -> extract -> train -> evaluate, each step the real command

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PACKAGES := commands pipeline report scenes search trainer

.PHONY: setup gl chromium axe test style links types docs notebook lowest dist mutants fuzz torture schemathesis load demo clean
.ONESHELL:
.SHELLFLAGS := -eu -c

setup: gl $(VENV)/installed

# Most of what is installed is never imported: compiling all of it takes longer than the tests'
# imports, which compile what they need.
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt -e '.[docs,scenes,test]'
	touch $@

# OpenGL for the 3D pictures of `cqr scenes`; without it their tests are skipped, and say so.
gl:
	@if ! $(PYTHON) -c 'import ctypes; ctypes.CDLL("libEGL.so.1"); ctypes.CDLL("libGL.so.1")' 2>/dev/null; then
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
	    apt-get update -qq && apt-get install -y -qq libegl1 libgl1 libgl1-mesa-dri >/dev/null
	  else
	    echo "For the 3D pictures install: libegl1 libgl1 libgl1-mesa-dri" >&2
	  fi
	fi

# Chromium for the tests of the page; without it they are skipped, and say so.
chromium:
	@if ! command -v chromium >/dev/null && ! command -v chromium-browser >/dev/null; then
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
	    apt-get update -qq && apt-get install -y -qq chromium >/dev/null
	  else
	    echo "For the tests of the page install: chromium" >&2
	  fi
	fi

# The rules of accessibility that the tests of the page hold it to.
axe:
	@command -v npm >/dev/null || { echo "For these tests install: npm" >&2; exit 0; }
	npm install --no-save --no-package-lock --silent axe-core

# The hundreds of processes of the tests must not each compile what `setup` has not.
test: setup chromium style types docs
	OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

style: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Type checkers, and the site's, do not see how an editable install maps `cqr` onto these folders.
links:
	@mkdir -p .types/cqr
	ln -sfn $(foreach p,$(PACKAGES),$(CURDIR)/$(p)) $(CURDIR)/*.py .types/cqr/

types: setup links
	MYPYPATH=.types $(BIN)/mypy --explicit-package-bases --namespace-packages -p cqr

docs: setup links
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

notebook: setup
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python docs/notebook.py

lowest: gl
	$(PYTHON) -m venv .lowest
	.lowest/bin/python -m pip install --quiet -c constraints.txt uv
	.lowest/bin/uv pip install --quiet --python .lowest/bin/python --resolution lowest-direct \
	  -e '.[docs,scenes,test]'
	.lowest/bin/python -m pytest

dist: setup
	rm -rf dist
	$(BIN)/python -m pip install --quiet -c constraints.txt build twine
	$(BIN)/python -m build --quiet
	$(BIN)/python -m twine check --strict dist/*
# Some hours on one core; it goes on where it was stopped.
mutants: setup
	nice $(BIN)/python benchmarks/campaigns/mutants.py

# Hours on one core; seeds are printed, and what fails is kept under tests/cases.
fuzz: setup
	nice $(BIN)/python benchmarks/campaigns/fuzz.py --inputs 20000

# Some hours on one core.
torture: setup
	nice $(BIN)/python benchmarks/campaigns/torture.py

schemathesis: setup
	$(BIN)/python benchmarks/campaigns/described.py

load: setup
	$(BIN)/python benchmarks/campaigns/serve_load.py

demo: setup
	PATH="$(CURDIR)/$(BIN):$$PATH" sh demo.sh

clean:
	rm -rf $(VENV) .lowest .types build dist site *.egg-info
