# GNU make. `make` alone prints what there is; every target that needs packages installs them into .venv and says so.

PYTHON ?= python3
ARGS ?=
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check install --quiet --no-input
PACKAGES := cryptocore alerts streams reports

.PHONY: help demo test check bench faults servers pins clean
.DEFAULT_GOAL := help

help:
	@echo 'keytrail: who used which encryption key, when, why, and whether that was all right'
	@echo
	@echo '  make demo      a simulated week, from the first encrypt to the weekly report, into demo-out/'
	@echo '  make test      unit tests, then tests on real Kafka, Elasticsearch and PostgreSQL where they can run'
	@echo '  make check     format, lint, types, imports'
	@echo '  make bench     measure, print a table, write bench/out/results.json'
	@echo '  make faults    break everything under the monitor for minutes, look at what is left, print two tables'
	@echo '  make servers   fetch the servers for the tests, start each once, ask it, stop it'
	@echo '  make pins      resolve requirements/*.txt again after a change of pyproject.toml'
	@echo '  make clean     remove what the above left, except .venv/ and .servers/'
	@echo
	@echo "  PYTHON=$(PYTHON) makes .venv (3.11 or newer); ARGS='...' is passed on, as in make test ARGS='-k envelope'"

demo: $(VENV)/.demo
	$(VENV)/bin/keytrail demo --out demo-out $(ARGS)

test: $(VENV)/.test
	@$(PY) -m tests.servers fetch
	$(PY) -m pytest --cov $(ARGS)

check: $(VENV)/.test
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy $(PACKAGES) tests bench examples requirements
	$(VENV)/bin/lint-imports

bench: $(VENV)/.bench
	@$(PY) -m tests.servers fetch
	$(PY) -m bench $(ARGS)

faults: $(VENV)/.test
	@$(PY) -m tests.servers fetch
	$(PY) -m tests.faults.campaign $(ARGS)

servers: $(VENV)/.test
	@$(PY) -m tests.servers fetch verify

pins: $(PY)
	$(PY) requirements/pin.py $(ARGS)

clean:
	rm -rf demo-out again mine build dist bench/out .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find $(PACKAGES) tests bench examples requirements -name __pycache__ -type d -prune -exec rm -rf {} +

# --- the environment; a stamp is older than its requirements when they change, and pip then does the rest ---

$(PY):
	@command -v $(PYTHON) >/dev/null || { \
	  echo 'keytrail needs Python 3.11 or newer and finds no $(PYTHON). Install it, or name one: make PYTHON=python3.12 ...'; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "keytrail needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -c 'import platform; print(platform.python_version())')." \
	    'Name a newer one: make PYTHON=python3.12 ...'; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo 'keytrail needs the venv module of $(PYTHON), which is not installed (on Debian: apt-get install python3-venv).'; exit 1; }
	@echo 'making $(VENV)/ with $(PYTHON)'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: SIZE := about 120 MB, half a minute
$(VENV)/.test: SIZE := about 360 MB, a minute
$(VENV)/.bench: SIZE := about 400 MB, a minute

$(VENV)/.%: requirements/%.txt pyproject.toml | $(PY)
	@echo "installing the $$(grep -c == requirements/$*.txt) packages of requirements/$*.txt into $(VENV)/:" \
	  '$(SIZE); nothing outside $(VENV)/ changes'
	@$(PIP) --requirement requirements/$*.txt
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@
