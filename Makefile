PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# These train predictors, which is two fifths of the unit tests' time.
SLOW_UNIT_TESTS := tests/unit/prediction/test_training.py tests/unit/prediction/test_training_process.py

.PHONY: install serve check test lint format bench clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[runtime,operator,dev]'
	touch $(STAMP)

serve: install
	$(BIN)/tdpipe serve

check: install lint
	$(BIN)/python -m pytest tests/unit $(addprefix --ignore=,$(SLOW_UNIT_TESTS))

test: install lint
	$(BIN)/python -m pytest

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=runtime:operator $(BIN)/lint-imports

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install
	$(BIN)/python -m benchmarks $(or $(NAME),all)

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
