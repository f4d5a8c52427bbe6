# make demo   a finished fine-tune and its pictures in a few minutes, in a venv of its own
# make test   everything that has to pass before a change is merged
# make clean  removes the venv and what tools have left; runs/ and build/base_model/ stay

PYTHON ?= python3
VENV := .venv
# A stamp is touched when its step is done, so that an interrupted one is done again.
VENV_MADE := $(VENV)/.made
RUN_INSTALLED := $(VENV)/.installed-run
DEV_INSTALLED := $(VENV)/.installed-dev
PIP_INSTALL := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: help demo test clean

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

demo: $(RUN_INSTALLED)
	@$(VENV)/bin/surefoot demo

test: $(DEV_INSTALLED)
	@VIRTUAL_ENV="$(CURDIR)/$(VENV)" scripts/check

$(VENV_MADE):
	@$(PYTHON) -c '' >/dev/null 2>&1 || \
	  { echo "surefoot needs Python 3.11 to 3.14, and no '$(PYTHON)' runs here: install one, or name it: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' || \
	  { echo "surefoot needs Python 3.11 to 3.14, and '$(PYTHON)' is $$($(PYTHON) --version 2>&1): name another one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "'$(PYTHON)' comes without venv: install it (Debian and Ubuntu: apt install python3-venv), or name another Python: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(RUN_INSTALLED): $(VENV_MADE) pyproject.toml constraints.txt
	@echo "Installing surefoot and torch into $(VENV) (once; a few minutes, by the network)"
	@$(PIP_INSTALL) -e .
	@touch $@

$(DEV_INSTALLED): $(VENV_MADE) pyproject.toml constraints.txt
	@echo "Installing surefoot, torch and the development tools into $(VENV) (once; a few minutes, by the network)"
	@$(PIP_INSTALL) -e '.[dev]'
	@touch $(RUN_INSTALLED) $@

# Not all of build/: a half-trained built-in model may lie in it.
clean:
	rm -rf $(VENV) dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests tools scripts benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
