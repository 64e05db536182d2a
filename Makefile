# What a person types.  Everything happens in .venv and in .muster (or MUSTER_HOME).

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# Two installations at once would each remove what the other adds.
.NOTPARALLEL:
# Without byte code Airflow starts each task seconds later.
unexport PYTHONDONTWRITEBYTECODE

# The first Python that fits and can make a virtual environment; a name may be a shim of nothing.
FITS := import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3; do \
	"$$python" -c "$(FITS)" 2>/dev/null && echo "$$python" && break; done)
BIN := .venv/bin
# The locks that .venv keeps beside requirements.txt.  Not $(wildcard): make caches folders.
EXTRAS := tests ssh kubernetes gpu mocks abacus mpi helm
ADDED = $(filter-out $@,$(shell ls -d $(EXTRAS:%=.venv/.%) 2>/dev/null))
# The editable package is synced along, so that services that run meanwhile never miss it.
SYNC = echo "--editable ." | $(BIN)/uv pip sync --quiet --python $(BIN)/python --compile-bytecode \
	- requirements.txt $(patsubst .venv/.%,requirements/%.txt,$(ADDED))
# How many processes run the tests: half of their time they wait for services.
PROCESSES ?= 3
# A worker that crashed is not replaced: its test would run, and crash, again.
PYTEST = $(BIN)/pytest -n $(PROCESSES) --max-worker-restart 0

.PHONY: help run stop status slurm slurm-stop ssh kubernetes gpu mocks abacus mpi helm test test-quick test-slow test-slurm test-thorough \
	test-all images test-images lint format bench lock

help: ## Say what there is to type.
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1:\2/p' Makefile | while IFS=: read -r name text; do \
		printf '  make %-12s %s\n' "$$name" "$$text"; done

.venv/.complete: requirements.txt requirements/uv.txt pyproject.toml
	@"$(PYTHON)" -c "$(FITS)" 2>/dev/null || { \
		echo "error: no Python 3.11 to 3.13 with venv found; got: '$(PYTHON)';" \
			"do: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@rm -f $@
	@test -x $(BIN)/uv || { echo "making .venv with $(PYTHON)"; "$(PYTHON)" -m venv --clear .venv; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes \
		--requirement requirements/uv.txt
	@echo "installing requirements.txt"
	@$(SYNC)
	@touch $@

$(EXTRAS:%=.venv/.%): .venv/.%: requirements/%.txt .venv/.complete
	@rm -f $@
	@echo "installing $<"
	@$(SYNC) $<
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
	@$(BIN)/python -m minislurm start

slurm-stop: ## End all that 'make slurm' has started, jobs too.
	@test -x $(BIN)/python || { echo "nothing was started here"; exit 0; }; \
		$(BIN)/python -m minislurm stop

ssh: .venv/.ssh ## Add the packages for a cluster by ssh to .venv.

kubernetes: .venv/.kubernetes ## Add the packages for a Kubernetes cluster to .venv.

gpu: .venv/.gpu ## Add the packages for the engine cupy to .venv.

mocks: .venv/.mocks ## Add the packages for mock campaigns to .venv (hod, diffsky with JAX).

abacus: .venv/.abacus ## Add the reader of AbacusSummit's halo catalogues (GPL-3.0) to .venv.

mpi: .venv/.mpi ## Add mpi4py to .venv; it needs an MPI on the machine.

helm: .venv/.helm ## Add Helm to .venv, with which the chart is tested.

test: .venv/.tests ## Run the tests, those against a live Airflow and Slurm too (about eleven minutes).
	$(PYTEST) -m "not thorough"

test-quick: .venv/.tests ## Run the tests that take seconds (two minutes).
	$(PYTEST) -m "not slow and not airflow and not slurm and not thorough"

test-slow: .venv/.tests ## Run the tests that take minutes, without the thorough ones.
	$(PYTEST) -m "(slow or airflow or slurm) and not thorough"

test-slurm: .venv/.tests ## Run all tests on Slurm clusters, those that break them too.
	$(PYTEST) -m slurm --split-services

test-thorough: .venv/.tests ## Run what proves at length: faults, breaking clusters, many examples.
	HYPOTHESIS_PROFILE=all $(PYTEST) -m "thorough or property" --split-services

images: ## Build the images of docker/ with docker, podman or buildah.
	@sh docker/build_images.sh

test-images: .venv/.tests ## Build the images without a registry, and try them (as root, on Debian).
	$(BIN)/pytest -n 0 -m images tests/images

test-all: test ## Run all tests there are (long).
	@$(MAKE) --no-print-directory test-thorough

lint: .venv/.tests ## Check style and types.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/.tests ## Put the code into its format.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/.tests ## Measure the speeds that docs/benchmarks.md tells.
	@for benchmark in benchmarks/[a-z]*.py; do \
		echo "== $$benchmark"; $(BIN)/python "$$benchmark" || exit 1; done

COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--custom-compile-command "make lock" $(UPGRADE:%=--upgrade-package %)
# A lock of requirements/ pins only what requirements.txt does not.
COMPILE_ADDED = $(COMPILE) pyproject.toml --constraint requirements.txt \
	$$(sed -n 's/^\([a-z0-9-]*\)==.*/--no-emit-package \1/p' requirements.txt)
# A lock of docker/locks pins what any extra needs that its image may be built with.
COMPILE_IMAGE = $(COMPILE) pyproject.toml --constraint requirements.txt --excludes docker/excluded.txt

lock: .venv/.complete ## Compile all locks: requirements.txt, requirements/ and docker/locks/.
	$(COMPILE) pyproject.toml --extra airflow --extra compute --output-file requirements.txt
	$(COMPILE) --group uv --output-file requirements/uv.txt
	@$(COMPILE_ADDED) --extra ssh --output-file requirements/ssh.txt
	@$(COMPILE_ADDED) --extra kubernetes --output-file requirements/kubernetes.txt
	@$(COMPILE_ADDED) --extra gpu --output-file requirements/gpu.txt
	@$(COMPILE_ADDED) --extra mocks --output-file requirements/mocks.txt
	@$(COMPILE_ADDED) --extra mocks --extra abacus --output-file requirements/abacus.txt
	@$(COMPILE_ADDED) --extra mpi --output-file requirements/mpi.txt
	@$(COMPILE_ADDED) --extra helm --output-file requirements/helm.txt
	@$(COMPILE_ADDED) --extra ssh --extra kubernetes --extra mocks --extra test \
		--output-file requirements/tests.txt
	@$(COMPILE) docker/build.in --group uv --constraint requirements.txt \
		--constraint requirements/uv.txt --output-file docker/locks/build.txt
	@$(COMPILE_IMAGE) --extra airflow --extra ssh --extra kubernetes \
		--extra celery --output-file docker/locks/airflow.txt
	@$(COMPILE_IMAGE) --extra compute --extra mocks --extra abacus --output-file docker/locks/compute.txt
	@$(COMPILE_IMAGE) docker/compute-gpu/pyproject.toml --extra compute --extra mocks --extra abacus \
		--extra gpu --constraint docker/locks/compute.txt --output-file docker/locks/compute-gpu.txt
