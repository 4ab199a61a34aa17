# Both targets build .venv in this folder from requirements.lock, and use it.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock

.PHONY: quickstart test slow lint lock clean

quickstart: $(VENV)/.base  ## the whole chain on this machine; results in runs/quickstart
	$(BIN)/agentbank quickstart --workdir=runs/quickstart

test: $(VENV)/.test  ## the test suite, without its slow part
	$(BIN)/python -m pytest

slow: $(VENV)/.envs  ## the slow part: real browsers and Java machines, the TPU compiler
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/.test
	$(BIN)/ruff check .

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.base: $(VENV)/bin/python requirements.lock pyproject.toml
	@echo "installing into $(VENV) (about a minute)"
	$(PIP) --editable .
	touch $@

$(VENV)/.test: $(VENV)/.base
	@echo "installing what the tests need (about a minute)"
	$(PIP) --editable '.[test]'
	touch $@

$(VENV)/.envs: $(VENV)/.test
	@echo "installing the environments and the TPU compiler (some minutes: ALFWorld is compiled)"
	$(PIP) --editable '.[test,envs,tpu]'
	touch $@

# The versions everything is tested with: those of a fresh environment, written down.
lock:
	rm -rf $(VENV)-lock
	$(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/python -m pip install --quiet --editable '.[test,envs,tpu,bench]'
	( echo "# Made by 'make lock': every version that the targets of the Makefile install."; \
	  $(VENV)-lock/bin/python -m pip freeze --exclude-editable | grep -v '@ file' | sed 's/+cpu$$//' ) > requirements.lock
	rm -rf $(VENV)-lock

clean:
	rm -rf $(VENV) $(VENV)-lock runs
