# One command each: `make demo`, `make test`. Needs Python >= 3.11, git and make; everything else goes into .venv.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-all fuzz faults guarantees pinned supply lint format scenes bundles clean

demo: .venv/runtime
	$(BIN)/python scripts/demo.py

test: .venv/development
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-all: .venv/development
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not gpu and not peer"

# Damaged files of every kind; about ten minutes on two cores.
fuzz: .venv/development
	$(BIN)/python -m tests.fuzz --cases 20000

# ENOSPC, EIO and kill -9 at every write and rename of small runs; about half an hour on two cores.
faults: .venv/development
	$(BIN)/python -m tests.faults

# What is promised, and what was measured: G1 to G12 in one table; add --quick for smaller numbers.
guarantees: .venv/development
	$(BIN)/python scripts/guarantees.py

# The packages of requirements/ with their hashes, and nothing else (docs/supply_chain.md).
pinned:
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --require-hashes --no-deps -r requirements/linux-x86_64-cp311.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch .venv/runtime .venv/development

# Licences, a wheel made twice, and known vulnerabilities (3: the service could not be asked).
supply: .venv/development
	$(BIN)/python -m pip install --quiet --group supply
	$(BIN)/python scripts/supply_chain.py licences
	$(BIN)/python scripts/supply_chain.py wheel
	$(BIN)/python scripts/supply_chain.py audit || test $$? -eq 3

lint: .venv/development
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/development
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# What the repository ships and how it was made; these take long and need the real data (GEOSEG_REAL_DATA).
scenes: .venv/development
	$(BIN)/python sample_scenes/make_scenes.py

bundles: .venv/development
	for name in landcover-lale landcover-chromaformer landcover-lemevit cloud-lale cloud-mscloudcam; do \
	    $(BIN)/python scripts/train_bundles.py $$name || exit 1; done

.venv/runtime: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

.venv/development: .venv/runtime
	$(BIN)/python -m pip install --quiet --group dev
	touch $@

clean:
	rm -rf .venv build dist demo *.egg-info
