# What a person types.  Everything happens in .venv and in .muster (or MUSTER_HOME).

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# Without byte code Airflow starts each task seconds later.
unexport PYTHONDONTWRITEBYTECODE

# The first Python that fits and can make a virtual environment; a name may be a shim of nothing.
FITS := import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3; do \
	"$$python" -c "$(FITS)" 2>/dev/null && echo "$$python" && break; done)
UV_VERSION := $(shell sed -n 's/^uv==\([0-9.]*\).*/\1/p' requirements.txt)
BIN := .venv/bin
# How many processes run the tests; much of their time they wait for services.
PROCESSES ?= 2

.PHONY: help run stop status slurm slurm-stop test test-quick test-slow test-slurm test-thorough lint format bench lock

help: ## Say what there is to type.
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1:\2/p' Makefile | while IFS=: read -r name text; do \
		printf '  make %-12s %s\n' "$$name" "$$text"; done

.venv/.complete: requirements.txt pyproject.toml
	@"$(PYTHON)" -c "$(FITS)" 2>/dev/null || { \
		echo "error: no Python 3.11 to 3.13 with venv found; got: '$(PYTHON)';" \
			"do: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@rm -f $@
	@test -x $(BIN)/uv || { echo "making .venv with $(PYTHON)"; "$(PYTHON)" -m venv --clear .venv; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv==$(UV_VERSION)"
	@echo "installing packages"
	@$(BIN)/uv pip sync --quiet --python $(BIN)/python --compile-bytecode requirements.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

run: .venv/.complete ## Map an example, or PLOTS=plots.csv PREDICTORS=stack.tif TRAITS="a b".
	@$(BIN)/python -m muster.laptop run $${PLOTS:+--plots "$$PLOTS"} \
		$${PREDICTORS:+--predictors "$$PREDICTORS"} $${TRAITS:+--traits "$$TRAITS"} \
		$${OUTPUT:+--output "$$OUTPUT"}

stop: ## End all that 'make run' has started.
	@test -x $(BIN)/python || { echo "nothing was started here"; exit 0; }; \
		$(BIN)/python -m muster.laptop stop

status: ## Say what runs.
	@test -x $(BIN)/python || { echo "nothing was started here"; exit 0; }; \
		$(BIN)/python -m muster.laptop status

slurm: .venv/.complete ## Start a small Slurm cluster on this machine, for trying out.
	@$(BIN)/python -m muster.laptop.slurm start

slurm-stop: ## End all that 'make slurm' has started, jobs too.
	@test -x $(BIN)/python || { echo "nothing was started here"; exit 0; }; \
		$(BIN)/python -m muster.laptop.slurm stop

test: .venv/.complete ## Run all tests, those against a live Airflow too (minutes).
	$(BIN)/pytest -n $(PROCESSES) -m "not slurm_faults and not thorough"

test-quick: .venv/.complete ## Run the tests that take seconds.
	$(BIN)/pytest -n $(PROCESSES) -m "not slow and not airflow and not slurm_faults and not thorough"

test-slow: .venv/.complete ## Run the tests that take minutes.
	$(BIN)/pytest -n $(PROCESSES) -m "(slow or airflow) and not slurm_faults and not thorough"

test-thorough: .venv/.complete ## Run the tests that take minutes of processors or of a live Airflow.
	$(BIN)/pytest -m thorough

test-slurm: .venv/.complete ## Break Slurm clusters in every way, one test after the other (long).
	$(BIN)/pytest -m slurm_faults

lint: .venv/.complete ## Check style and types.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/.complete ## Put the code into its format.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/.complete ## Measure the speeds that docs/benchmarks.md tells.
	@for benchmark in benchmarks/[a-z]*.py; do \
		echo "== $$benchmark"; $(BIN)/python "$$benchmark" || exit 1; done

lock: .venv/.complete ## Compile requirements.txt from pyproject.toml.
	$(BIN)/uv pip compile pyproject.toml --extra airflow --extra compute --extra ssh --extra test \
		--universal --python-version 3.11 --output-file requirements.txt
