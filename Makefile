# make setup   the environment, in .venv
# make test    the environment, style, types, all tests
# make mutants small errors in some modules: which do their tests find?
# make demo    scenes -> extract -> train -> evaluate, each step the real command

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PACKAGES := pipeline report scenes search trainer

.PHONY: setup gl chromium test style types mutants demo clean
.ONESHELL:
.SHELLFLAGS := -eu -c

setup: gl $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[scenes,test]'
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

test: setup chromium style types
	$(BIN)/python -m pytest

style: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Type checkers do not see how an editable install maps `cqr` onto these folders.
types: setup
	@mkdir -p .types/cqr
	ln -sfn $(foreach p,$(PACKAGES),$(CURDIR)/$(p)) $(CURDIR)/*.py .types/cqr/
	MYPYPATH=.types $(BIN)/mypy --explicit-package-bases --namespace-packages -p cqr

# Some hours on one core; it goes on where it was stopped.
mutants: setup
	nice $(BIN)/python benchmarks/mutants.py

demo: setup
	PATH="$(CURDIR)/$(BIN):$$PATH" sh demo.sh

clean:
	rm -rf $(VENV) .types build *.egg-info
