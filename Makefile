# The two commands a newcomer needs are `make demo` and `make test`. Everything else is for working on the project.

PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3; do \
	"$$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null && echo "$$python" && break; done)
BIN := .venv/bin
INSTALLED := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo findings test test-slow crash-test ray-test slurm-test simulate screenshots lint lint-python lint-sql quick-tests bench bench-large bench-warehouse verify-families clean

help:
	@echo "make demo       pre-train a tiny OLMo and take it the whole way to a report (demo/)"
	@echo "make test       ruff, mypy, then the tests, but for the slow ones"
	@echo "make test-slow  sqlfluff, and the tests that take longer: a wheel in an empty environment, the full demo, more faults"
	@echo "make crash-test  kill runs at every step and at 100 random moments, heal and compare; readers under load"
	@echo "make ray-test   a Ray cluster of two workers on this machine; workers and drivers are killed"
	@echo "make slurm-test  a Slurm of one node, with requeued jobs; needs root, and apt install slurmctld slurmd munge"
	@echo "make simulate   how often intervals hold and verdicts are right, on data whose truth is known"
	@echo "make findings   the demo at three seeds, and docs/findings.md from it"
	@echo "make lint       ruff, mypy, sqlfluff"
	@echo "make bench      the short benchmarks"
	@echo "make bench-large  extraction at the shapes of OLMo-1B and OLMo-7B; takes hours, 20 GiB of memory and 14 GB of disk"
	@echo "make bench-warehouse  the warehouse of 10, 40 and 160 checkpoints of OLMo-7B's size; takes long"

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "timecourse needs Python 3.11, 3.12 or 3.13; install one, or say make PYTHON=/path/to/python"; exit 1; }
	"$(PYTHON)" -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	@touch $@

demo: $(INSTALLED)
	$(BIN)/timecourse demo

findings: $(INSTALLED)
	for seed in 0 1 2; do $(BIN)/timecourse demo --seed $$seed || exit 1; done
	$(BIN)/timecourse findings --lake demo/lake --output docs/findings.md

test: $(INSTALLED)
	$(MAKE) --no-print-directory -j 2 lint-python quick-tests

quick-tests: $(INSTALLED)
	$(BIN)/python -m pytest -m "not slow" -n 3 --dist loadfile --no-loadscope-reorder

test-slow: lint-sql
	$(BIN)/python -m pytest -m slow

crash-test: $(INSTALLED)
	$(BIN)/python -m tests.crash --kills 100 --failpoints distinct
	$(BIN)/python -m tests.crash.load --seconds 60 --readers 8

ray-test: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev,ray]"
	$(BIN)/python -m pytest tests/executors/test_ray.py

slurm-test: $(INSTALLED)
	$(BIN)/python -m pytest tests/executors/test_slurm.py

simulate: $(INSTALLED)
	$(BIN)/python -m simulations

screenshots: demo
	$(BIN)/python -m tests.reports.screenshots demo/lake/current/site docs/report

lint: lint-python lint-sql

lint-python: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p timecourse

lint-sql: $(INSTALLED)
	$(BIN)/sqlfluff lint --disable-progress-bar --processes 2 models dbt_project/tests/*.sql

verify-families: $(INSTALLED)
	$(BIN)/timecourse families --verify --format json --output extract/families/verified.json

bench: $(INSTALLED)
	$(BIN)/python -m benchmarks

bench-large: $(INSTALLED)
	$(BIN)/python -m benchmarks.overhead --shape OLMo-1B --tokens 16 64 256 1024
	$(BIN)/python -m benchmarks.overhead --shape OLMo-7B --tokens 16 128
	$(BIN)/python -m benchmarks.seven_billion

bench-warehouse: $(INSTALLED)
	$(BIN)/python -m benchmarks.warehouse --all

clean:
	rm -rf .venv build dist demo .pytest_cache .mypy_cache .ruff_cache
