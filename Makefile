# Two commands do everything: `make serve` and `make test`. `make check` is for while one works.
# Each process of the tests has one thread for linear algebra: together they have all cores.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The tests start hundreds of processes, and each would compile our modules anew.
unexport PYTHONDONTWRITEBYTECODE

# Types are checked beside the tests; what mypy says comes last.
define checked
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@$(BIN)/mypy >$(VENV)/types.txt 2>&1 & types=$$!; \
		(set -x; OMP_NUM_THREADS=1 $(BIN)/python -m pytest --dist worksteal $(1)); tests=$$?; \
		wait $$types; types=$$?; cat $(VENV)/types.txt; exit $$((tests | types))
endef

.PHONY: serve check test bench crowd sessions audit format messages clean

serve: $(VENV)/serve.installed
	trap '' HUP; exec $(BIN)/python -m web

check: $(VENV)/test.installed
	$(call checked,-q -n auto --hypothesis-profile few -m "not server and not slow and not long")

test: $(VENV)/test.installed
	$(call checked,-n 3)

bench: $(VENV)/test.installed
	$(BIN)/python -m tests.benchmarks

crowd: $(VENV)/test.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade \
		--target $(VENV)/crowd --requirement tests/crowd/packages.txt
	$(BIN)/python -W ignore -m tests.crowd $(VENV)/crowd

# Sessions with other versions of the libraries, each in an environment of its own.
sessions: $(VENV)/test.installed
	$(BIN)/python -m tests.sessions $(VENV)/sessions

audit: $(VENV)/test.installed
	$(BIN)/python -m pytest -n 3 --dist worksteal -m "long or hypothesis" --hypothesis-profile thorough
	$(BIN)/python -m tests.audit

format: $(VENV)/test.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Brings the catalogues up to date with the texts in templates/ and web/: new ones are empty, translators fill them in.
messages: $(VENV)/serve.installed
	$(BIN)/pybabel -q extract -F pyproject.toml --add-location=file --sort-by-file -o $(VENV)/messages.pot web templates
	$(BIN)/pybabel -q update --no-fuzzy-matching --ignore-obsolete --ignore-pot-creation-date --width=116 \
		-i $(VENV)/messages.pot -d web/page/locale

clean:
	rm -rf $(VENV)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/serve.installed: requirements.txt web/requirements.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.txt
	@touch $@

$(VENV)/test.installed: tests/requirements.txt $(VENV)/serve.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement tests/requirements.txt
	@touch $@
