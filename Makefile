# Everything a newcomer needs: `make demo` and `make test`. Both set up what they use in .venv.
PYTHON ?= python3
BIN := .venv/bin
# Where it is set, every start of Python compiles all anew: the tests, and each command line that they try.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test check faults torture bench scale format sample docs picture notebooks clean

demo: .venv/demo.stamp
	$(BIN)/pleo-extract demo --out demo/export_jobs

test: .venv/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -n auto

# What takes longer, or needs tools beyond Python, which it installs; CI runs it after `make test`.
check: .venv/test.stamp
	PYTHONPATH=tests/torture $(BIN)/pytest -p tally -n 2 tests/torture
	$(BIN)/python tests/benchmarks/guard.py
	$(BIN)/python tests/benchmarks/accounts.py --guard
	.ci/contract
	.ci/browser
	.ci/spark
	.ci/dask
	.ci/duckdb
	.ci/stores

# Every fault that is tried, and whether it is survived; see tests/fault_table.py.
faults: .venv/test.stamp
	$(BIN)/python tests/fault_table.py -n auto

# Killed, cut off, starved and told to stop at every point, at full size: hours. Writes docs/torture.json and docs/torture.md.
torture: .venv/test.stamp
	TALLY=docs/torture.json TORTURE=full PYTHONPATH=tests/torture $(BIN)/pytest -p tally -n 2 tests/torture
	$(BIN)/python docs/generate.py

# Beside its peers, each in an environment of its own, in .bench; about an hour. Writes docs/benchmarks.md.
bench: .venv/test.stamp
	$(BIN)/python tests/benchmarks/bench.py

# Lakes of up to a hundred million jobs: a quarter of an hour and 10 GB of disk. Writes docs/scale.json and docs/scale.md.
scale: .venv/test.stamp
	$(BIN)/python tests/benchmarks/scale.py
	$(BIN)/python docs/generate.py

format: .venv/test.stamp
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# data/sample: made by the sandbox, the same each time.
sample: .venv/demo.stamp
	$(BIN)/python data/make_sample.py

# Tables, help texts and outputs in the documents, from the code.
docs: .venv/test.stamp
	$(BIN)/python docs/generate.py

# The picture at the top of the README, from data/sample.
picture: .venv/test.stamp
	$(BIN)/python docs/make_picture.py

# The notebooks, run anew, with their outputs.
notebooks: .venv/test.stamp
	$(BIN)/python notebooks/run_all.py

clean:
	rm -rf .venv .venv-contract .venv-dask .venv-duckdb .venv-spark .venv-stores .bench demo .pytest_cache .mypy_cache .ruff_cache .hypothesis

.venv/python.stamp:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	touch $@

.venv/demo.stamp: .venv/python.stamp pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	touch $@

.venv/test.stamp: .venv/python.stamp pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@
