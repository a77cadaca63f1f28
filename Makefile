# The only door: every target sets up what it needs from a plain Python 3.11 (or newer) with pip, and make.
PYTHON ?= python3
UV_VERSION := 0.13.8
UV := .tools/bin/uv
RUN := $(UV) run --no-sync
READY := .venv/.ready

export UV_PROJECT_ENVIRONMENT := .venv
export RAY_USAGE_STATS_ENABLED := 0

.PHONY: help demo test faults fuzz lint types contracts format proto bench build clean

help:  ## This list
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

demo: $(READY)  ## Simulate, train, promote, serve, replay, report (DATA=<history> for your own, ASSETS=<n>)
	@$(RUN) wheeltapper demo --dir build/demo $(if $(DATA),--data $(DATA)) $(if $(ASSETS),--assets $(ASSETS))

test: $(READY)  ## Unit, property and journey tests (ARGS="-k name")
	@$(RUN) pytest $(ARGS)

faults: $(READY)  ## Kills, full disks, cut lines: every promise, for minutes (ARGS="-k name")
	@$(RUN) pytest -m slow $(ARGS)

fuzz: $(READY)  ## Hostile bytes for every reader, guided by coverage (SECONDS=1800 each, TARGET=one)
	@for target in $(or $(TARGET),wire_stream wire_unary wire_answer pack journal recovery spool fleet_toml grants registry); do \
		$(RUN) python tests/fuzz/run.py $$target --seconds $(or $(SECONDS),1800) || exit 1; done

lint: $(READY)  ## Style and hygiene
	@$(RUN) ruff check .
	@$(RUN) ruff format --check .

types: $(READY)  ## mypy, strict
	@$(RUN) mypy command/wheeltapper_command proto/generate.py core/wheeltapper trainer/wheeltapper_trainer \
		scorer/wheeltapper_scorer gateway/wheeltapper_gateway benchmarks

contracts: $(READY)  ## Import directions, and stubs equal to the .proto files
	@$(RUN) lint-imports --no-cache
	@$(RUN) python proto/generate.py --check

format: $(READY)  ## Rewrite the code in the house style
	@$(RUN) ruff check --fix .
	@$(RUN) ruff format .

proto: $(READY)  ## Generate the stubs from the .proto files
	@$(RUN) python proto/generate.py

bench: $(READY)  ## Measure one claim: make bench NAME=features (ARGS="--short")
	@$(if $(NAME),$(RUN) python -m benchmarks.$(NAME) $(ARGS),echo "make bench NAME=<one of: $(sort $(basename $(notdir $(filter-out benchmarks/__init__.py benchmarks/harness.py,$(wildcard benchmarks/*.py)))) $(notdir $(patsubst %/__main__.py,%,$(wildcard benchmarks/*/__main__.py))))>"; exit 2)

build: $(READY)  ## Wheels of all packages, in dist/
	@$(UV) build --quiet --all-packages --wheel --out-dir dist

clean:  ## Remove what make made
	rm -rf build dist .venv .tools .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(UV):
	@$(PYTHON) -m venv .tools
	@.tools/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

$(READY): $(UV) uv.lock pyproject.toml $(wildcard */pyproject.toml)
	@$(UV) sync --quiet --locked --all-groups --python $(shell command -v $(PYTHON))
	@touch $@
