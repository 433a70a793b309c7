# Everything runs in .venv, which the first target that needs it creates.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install demo test test-slow test-faults reliability check bench bench-followers bench-service bench-step \
	bench-parse bench-accuracy bench-accuracy-long clean

install: .venv/.installed

# Installed once; again only when the project's dependencies change.
.venv/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

demo: install
	$(BIN)/python examples/demo.py

# Two processes of one thread each: more would wait for one another on a machine with two cores.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

test: install
	$(PYTEST) -m 'not slow'

test-slow: install
	$(PYTEST) -m 'slow and not faults'

# One at a time: each starts a whole service.
FAULTS = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m faults tests/faults

test-faults: install
	$(FAULTS)

# The same, and writes how long each recovery took into docs/reliability.md.
reliability: install
	rm -f .recoveries
	DIANAQ_RECOVERIES=.recoveries $(FAULTS)
	$(BIN)/python tests/faults/recovery.py .recoveries
	rm .recoveries

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: install
	$(BIN)/python benchmarks/service.py

bench-followers: install
	$(BIN)/python benchmarks/followers.py

# PEERS=1 adds published frameworks to the comparison.
bench-step: install
	$(if $(PEERS),$(BIN)/python -m pip install --quiet --editable '.[bench]')
	$(BIN)/python benchmarks/step.py $(if $(PEERS),--peers)
	$(BIN)/python benchmarks/feed.py --record

bench-service: bench-followers
	$(BIN)/python benchmarks/load.py

bench-parse: install
	$(BIN)/python benchmarks/parsing.py

bench-accuracy: install
	$(BIN)/python benchmarks/accuracy.py

# Trains for hours on two cores.
bench-accuracy-long: install
	$(BIN)/python benchmarks/accuracy.py --long

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis demo-out
