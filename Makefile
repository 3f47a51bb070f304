# Thin: each target calls one thing. `make` alone lists them.

PYTHON ?= python3
RUN    := .venv/bin/flowerlib
# PIP_USER: a pip.conf that installs for the user would be refused in an environment.
PIP    := PIP_USER=0 .venv/bin/pip install --quiet --disable-pip-version-check

# On Linux the package index gives PyTorch's CUDA build (6 GB on disk); TORCH=cpu takes the small CPU build.
TORCH ?= default
INDEX  := $(if $(filter cpu,$(TORCH)),--extra-index-url https://download.pytorch.org/whl/cpu)

# make experiments DATA=~/my-photos WEIGHTS=none SET="epochs=5 image_size=128"
OPTIONS := $(if $(DATA),--data "$(DATA)") $(if $(WEIGHTS),--weights "$(WEIGHTS)") \
           $(foreach setting,$(SET),--set $(setting)) $(if $(RUNS),--runs "$(RUNS)") \
           $(if $(JOBS),--jobs $(JOBS))

# What the embedded pictures need: they are small, and without pre-trained weights the network learns from nothing.
DEMO := --data synthetic --weights none $(foreach setting,\
        image_size=48 epochs=12 learning_rate=0.005 lr_step=9 repeats=10,--set $(setting))

# A misspelt variable, DTA=~/my-photos, would be taken for none.
VARIABLES := PYTHON TORCH EXPERIMENTS DATA WEIGHTS SET RUNS OUT JOBS
UNKNOWN   := $(filter-out $(VARIABLES),$(foreach name,$(.VARIABLES),\
             $(if $(findstring command line,$(origin $(name))),$(name))))
$(if $(UNKNOWN),$(error There is no variable $(UNKNOWN). There are: $(VARIABLES)))

.DEFAULT_GOAL := help
.PHONY: help env demo experiments ablations report bench lab test lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "%-13s %s\n", $$1, $$2 }' Makefile

env: .venv/ready ## make the Python environment in .venv, again when its requirements change; option: TORCH

.venv/ready: requirements.txt requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "flowerlib needs Python 3.11 or later: make $(MAKECMDGOALS) PYTHON=/path/to/python3"; exit 1; }
	@echo 'Making the environment in .venv, which takes about two minutes.'
	$(PYTHON) -m venv --clear .venv
	$(PIP) $(INDEX) -r requirements.txt
	@touch $@

.venv/ready-for-tests: .venv/ready
	$(PIP) -c requirements.lock -e '.[test]'
	@touch $@

demo: env ## the three sessions and the PDF on synthetic images, in about three minutes
	$(RUN) run $(DEMO)
	$(RUN) report --runs runs/synthetic --out report/build/demo

experiments: env ## all sessions on the photos; options: EXPERIMENTS, DATA, WEIGHTS, SET, RUNS, JOBS
	$(RUN) run $(if $(EXPERIMENTS),--experiments "$(EXPERIMENTS)") $(OPTIONS)

ablations: env ## the sessions of ablations.yaml: the method with parts left out; options: DATA, WEIGHTS, SET, RUNS, JOBS
	$(RUN) run --experiments notebooks/ablations.yaml $(OPTIONS)

report: env ## the PDF of the finished sessions; options: RUNS, OUT
	$(if $(DATA),$(error make report takes RUNS, not DATA: RUNS=runs/$(notdir $(DATA:/=))))
	$(RUN) report $(if $(RUNS),--runs "$(RUNS)") $(if $(OUT),--out "$(OUT)")

bench: env ## how fast training is on this machine, in about ten minutes; option: DATA
	$(RUN) bench $(if $(DATA),--data "$(DATA)")

# JupyterLab's defaults in notebooks/jupyterlab: it neither asks about its news nor looks for other versions of itself.
lab: env ## the notebooks in JupyterLab
	.venv/bin/jupyter lab --LabApp.app_settings_dir=notebooks/jupyterlab notebooks

# Several files of tests at a time; with one thread each, their networks don't wait for each other's.
test: .venv/ready-for-tests ## the tests, and the style
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	OMP_NUM_THREADS=1 .venv/bin/pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# The CUDA packages are those that torch itself asks for: another build of it (TORCH=cpu) has none, or others.
lock: ## renew requirements.lock: the newest versions that pyproject.toml permits, for all systems
	$(PYTHON) -m venv .venv/uv
	.venv/uv/bin/pip install --quiet --disable-pip-version-check uv
	.venv/uv/bin/uv pip compile pyproject.toml --extra test --upgrade --universal --python-version 3.11 \
		--fork-strategy fewest --annotation-style line --custom-compile-command 'make lock' --quiet -o .venv/uv/lock
	grep -vE '^(cuda|nvidia|triton)' .venv/uv/lock > requirements.lock

clean: ## remove .venv and report/build; photos and runs stay
	rm -rf .venv report/build
