# The commands that matter. PYTHON is the environment's: make test PYTHON=.venv/bin/python
PYTHON ?= .venv-test/bin/python

.PHONY: install test check coverage ci

install: ## an environment with everything that the tests need
	python3 -m venv .venv-test
	$(PYTHON) -m pip install -U pip
	$(PYTHON) -m pip install -c constraints.txt -e ".[dev]"

test: ## the tests that take no longer than 5 seconds each
	$(PYTHON) -m pytest -n auto -m "not slow"

check: ## what is looked at before the tests: lint, types, the order of the rooms
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	$(PYTHON) -c "from importlinter.cli import lint_imports_command; lint_imports_command()" --no-logo --no-cache

coverage: ## which lines no test runs: htmlcov/index.html
	$(PYTHON) -m pytest -n auto -m "not slow" --cov --cov-report=term:skip-covered --cov-report=html

ci: ## all that continuous integration runs, in clean environments
	bash .ci/run
