# Two commands: `make lab` brings the whole thing up on this machine, `make test` runs everything there is to run.
# `make demo` plays a failover drill to its end and leaves a report with pictures in ./report.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml constraints.txt exporters/pyproject.toml
SPEED ?= 10

.PHONY: lab demo test check bench clean chromium help

help: ## What there is to make
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

lab: $(VENV)/.lab ## Bring the two-Region store, its AWS, canaries, alarms and the console up; prints pages as they are sent
	$(BIN)/python deploy.py lab up

demo: $(VENV)/.lab ## Play a failover drill and write a report with pictures to ./report
	$(BIN)/python deploy.py lab drill --out report

# Labs and canaries run against the clock. A test that fails is run once more, by itself; both results are printed, the second decides.
test: $(VENV)/.test chromium ## Run the whole test suite
	$(BIN)/python -m pytest || { echo "--- once more, what failed"; $(BIN)/python -m pytest --last-failed --last-failed-no-failures none; }

check: $(VENV)/.test ## Linters, types and the import contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy topology alarms dashboards canaries paging stacks lab deploy.py
	cd exporters && ../$(BIN)/mypy crosswatch_exporters
	$(BIN)/lint-imports

bench: $(VENV)/.test ## Measure speed and memory against the named peers
	for file in bench/*.py; do $(BIN)/python $$file || exit 1; done

clean: ## Remove what these targets made
	rm -rf $(VENV) out report .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Crosswatch needs Python 3.11 or newer; name one with: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.lab: $(VENV)/bin/python $(SOURCES)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e './exporters[all]' -e '.[lab]'
	@touch $@

$(VENV)/.test: $(VENV)/bin/python $(SOURCES)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e './exporters[all]' -e '.[test]'
	@touch $(VENV)/.lab $@

# The journey canary and the page tests need a real browser. Root installs Debian's; anybody else is told what to install.
chromium:
	@if command -v chromium >/dev/null && command -v chromedriver >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "installing Chromium for the browser tests"; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium chromium-driver >/dev/null; \
	else echo "Chromium and chromedriver are not installed: the journey canary and the browser tests are skipped (Debian: apt-get install chromium chromium-driver)"; fi
