# make demo   install into .venv, then train, analyze, compare and report, offline
# make quick  the tests of what starts no process, no Hub, no cluster and no training: to run while working
# make test   install if needed, then every test
# make coverage  the same, and which lines no test reaches: half as long again
# make check  lint, types, layers
# make docs   the site, into site/, offline and strictly
# make wheel  the source archive, tests from it, and the wheel used from another folder
# make bench  ratios against named peers
# make gpu-kit  on a machine with a GPU: what can be measured nowhere else, in minutes (docs/gpu.md)
# make audit-power  false alarms of an audit by value on sound series, and planted faults that it finds
# make agree  scores against lm-evaluation-harness, in an environment of its own
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo quick test coverage check docs wheel chromium bench audit-power agree gpu-kit gpu-wheels gpu-rehearsal install clean

install: $(INSTALLED)

$(INSTALLED): pyproject.toml .ci/constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "pythiageo needs Python 3.11 or newer, this is " + sys.version.split()[0])'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c .ci/constraints.txt torch
	$(BIN)/python -m pip install --quiet -c .ci/constraints.txt -e ".[dev,docs]"
	touch $@

demo: $(INSTALLED)
	$(BIN)/pythiageo train demo/tasks.toml demo/english.toml demo/pythia.toml --jobs 2 --overwrite
	$(BIN)/pythiageo serve outputs/demo-pythia --repo demo/pythia-nano -- $(BIN)/pythiageo analyze demo/pythia-hub.toml --overwrite
	$(BIN)/pythiageo compare outputs/demo-tasks outputs/demo-english --out outputs/demo-comparison
	for run in demo-tasks demo-english demo-pythia-hub; do $(BIN)/pythiageo export outputs/$$run --wide --format csv,md || exit; done
	$(BIN)/pythiageo report outputs/demo-tasks outputs/demo-english outputs/demo-pythia-hub --out outputs/demo-report.html

QUICK := $(addprefix tests/,claims compare config events geometry importers landscape lens linear_probe observations probes \
	series/test_layout.py stats)

quick: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 --dist worksteal -q -m "not slow and not network and not gpu and not bench" $(QUICK)

test: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not network and not gpu and not bench"

coverage: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not network and not gpu and not bench" --cov --cov-report=term

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(INSTALLED)
	$(BIN)/python docs/make_site.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

wheel: $(INSTALLED)
	.ci/wheel

chromium:
	.ci/chromium

bench: $(INSTALLED)
	$(BIN)/python -m pytest -m bench -s

audit-power: $(INSTALLED)
	$(BIN)/python -m pytest -n 0 -m bench -s tests/bench/test_bench_audit.py

# on the machine with a GPU; on one without package index: .ci/gpu, which takes the wheels
gpu-kit: $(INSTALLED)
	$(BIN)/python -m tests.gpu.kit --out outputs/gpu --minutes 20

gpu-wheels:
	rm -rf gpu-wheels
	$(PYTHON) -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
	  --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
	  -d gpu-wheels -r tests/gpu/wheels.txt
	du -sh gpu-wheels

gpu-rehearsal: $(INSTALLED)
	$(BIN)/python -m tests.gpu.kit --out outputs/gpu-rehearsal --device cpu --rehearse

agree:
	$(PYTHON) -m venv .venv-agree
	.venv-agree/bin/python -m pip install --quiet -c .ci/constraints.txt torch
	.venv-agree/bin/python -m pip install --quiet -c .ci/constraints.txt -r .ci/agree.txt -e ".[dev]"
	HF_HUB_OFFLINE=1 .venv-agree/bin/python -m pytest -n 0 tests/probes/test_harness.py

clean:
	rm -rf $(VENV) .venv-agree gpu-wheels build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis
