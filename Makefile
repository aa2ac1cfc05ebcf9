# A newcomer needs `make demo` and `make test`. Both install what they need into .venv.
PYTHON ?= python3
BIN := .venv/bin
# With this variable set, every Python process compiles all modules again: the tests start hundreds of them.
unexport PYTHONDONTWRITEBYTECODE
# pip does not compile what it installs: Python compiles the few modules that are imported, which takes half the time.
export PIP_COMPILE := 0
# The tests run a process a core and one more, so that more threads in each would only wait for one another.
TESTS := POLARS_MAX_THREADS=1 $(BIN)/pytest -n auto

.PHONY: demo test check check-clusters check-tools faults torture bench scale format sample docs picture notebooks clean

demo: .venv/demo.stamp
	$(BIN)/pleo-extract demo --out demo/export_jobs

test: .venv/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(TESTS)

# The slower checks, and those that need other tools than Python, which they install. CI runs this after `make test`.
check: .venv/test.stamp
	$(TESTS) -m slow
	PYTHONPATH=tests/torture $(TESTS) -p tally tests/torture
	$(MAKE) -j2 --output-sync=target check-clusters check-tools

# Suites with tools of their own spend much of their time on downloads and starting programs, so two run side by side.
check-clusters: .venv/test.stamp
	.ci/spark
	.ci/stores

# The guards, at its end, bound ratios of CPU time and of memory, which are true beside other load too.
check-tools: .venv/test.stamp
	.ci/pyright
	.ci/contract
	.ci/browser
	.ci/dask
	.ci/duckdb
	.ci/tools
	.ci/lowest
	.ci/newest
	.ci/beside
	.ci/install
	$(BIN)/python tests/benchmarks/guard.py
	$(BIN)/python tests/benchmarks/accounts.py --guard

# Run the tests of every fault and print which are survived; see tests/fault_table.py.
faults: .venv/test.stamp
	$(BIN)/python tests/fault_table.py -n auto

# The torture suite at full size: kills, power loss, disk errors and signals at every point. Takes hours. Writes
# docs/torture.json and docs/torture.md.
torture: .venv/test.stamp
	TALLY=docs/torture.json TORTURE=full PYTHONPATH=tests/torture $(BIN)/pytest -p tally -n 2 tests/torture
	$(BIN)/python docs/generate.py

# Benchmarks against other tools, each in its own environment under .bench. Takes about an hour. Writes
# docs/benchmarks.md.
bench: .venv/test.stamp
	$(BIN)/python tests/benchmarks/bench.py

# Lakes of up to 100 million jobs. Takes 15 minutes and 10 GB of disk. Writes docs/scale.json and docs/scale.md.
scale: .venv/test.stamp
	$(BIN)/python tests/benchmarks/scale.py
	$(BIN)/python docs/generate.py

format: .venv/test.stamp
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Make data/sample with the sandbox; every run gives the same bytes.
sample: .venv/demo.stamp
	$(BIN)/python data/make_sample.py

# Generate tables, help texts and outputs in the documents from the code.
docs: .venv/test.stamp
	$(BIN)/python docs/generate.py

# Draw the picture at the top of the README from data/sample.
picture: .venv/test.stamp
	$(BIN)/python docs/make_picture.py

# Run the notebooks and save their outputs.
notebooks: .venv/test.stamp
	$(BIN)/python notebooks/run_all.py

clean:
	rm -rf .venv .venv-contract .venv-dask .venv-duckdb .venv-install .venv-lowest .venv-newest .venv-pyright .venv-spark .venv-stores .venv-tools .bench demo .pytest_cache .mypy_cache .ruff_cache .hypothesis

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
