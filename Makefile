# Commands for users and developers of this project. `make help` lists them.
PYTHON ?= python3
VENV ?= .venv
DATA ?= $(or $(OOD_DATA),data)
BIN := $(VENV)/bin
GPU := $(VENV)-gpu
# The Dockerfile uses the same script.
INSTALL := deploy/install $(BIN)/python

.DEFAULT_GOAL := help
.PHONY: help serve test test-gpu lint docs audit train bench gpu secrets clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

# make passes its variables (make serve OOD_PORT=9000) to the service as environment variables.
serve: $(BIN)/.service ## Serve every bundle in models/ on port 8000 (OOD_PORT=9000 for another)
	$(BIN)/python -m service

test: lint ## Lint, types, import rules and all tests
	$(BIN)/python -m pytest -n auto --dist worksteal

# The GPU build of ONNX Runtime over CUDA libraries that need no GPU. It lies in a folder of its own, before the CPU build on
# the module path: both builds in one environment overwrite each other.
test-gpu: $(BIN)/.dev $(GPU)/.installed ## Test the GPU code without a GPU (downloads 260 MB; needs gcc)
	OOD_TEST_STAND_IN=1 PYTHONPATH=$(GPU)/site LD_LIBRARY_PATH=$(GPU)/lib $(BIN)/python -m pytest tests/gpu

lint: $(BIN)/.dev ## Ruff, mypy (strict) and the import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(BIN)/.dev ## Update the generated tables of README.md, docs/api.md and docs/results.md, and the figure of README.md
	PYTHONPATH=. $(BIN)/python docs/generate.py
	PYTHONPATH=. $(BIN)/python docs/calibration_figure.py

# Not part of lint: the database changes daily, and the query needs the network.
audit: $(BIN)/.dev ## Look up every version in constraints.txt in PyPI's advisory database (needs the network)
	$(BIN)/pip-audit --strict --disable-pip --no-deps --requirement constraints.txt

train: $(BIN)/.dev ## Train, calibrate, evaluate and export: make train RECIPE=recipe.yaml DATA=dir [ARGS='--version 2']
	@test -n "$(RECIPE)" || { echo "give a recipe: make train RECIPE=training/recipes/cifar10-oe.yaml DATA=dir ARGS='--version 2'"; exit 2; }
	$(BIN)/python -m training run $(RECIPE) --data $(DATA) --resume $(ARGS)

# Peers that cannot be installed are named and excluded.
bench: $(BIN)/.dev ## Measure training, and the service compared with its upper limit and other servers (docs/benchmarks.md)
	$(BIN)/python -m benchmarks install-peers
	$(BIN)/python -m benchmarks

# No network: the environment must have the extras service-gpu and training-gpu. ARGS='--data DIR' trains on real data.
gpu: ## Measure a GPU in at most nine minutes (docs/benchmarks.md): make gpu BIN=DIR-OF-PYTHON ARGS='--data data'
	$(BIN)/python -m benchmarks gpu $(ARGS)

# The files are readable for all because the containers' users do not exist on this machine; the folder is private.
secrets: $(BIN)/.service ## Create the secrets of docker-compose.yml: a first API key (shown once), Grafana's password, receivers
	@mkdir -p -m 700 deploy/secrets
	@test -e deploy/secrets/api-keys || $(BIN)/python -m service new-key first > deploy/secrets/api-keys
	@test -e deploy/secrets/grafana-password || \
	  $(BIN)/python -c 'import secrets; print(secrets.token_urlsafe(24), end="")' > deploy/secrets/grafana-password
	@test -e deploy/secrets/receivers.yml || cp deploy/alertmanager/receivers.yml deploy/secrets/
	@chmod 644 deploy/secrets/*

clean: ## Remove the virtual environment and caches
	rm -rf $(VENV) $(GPU) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

$(BIN)/.service: $(BIN)/python pyproject.toml constraints.txt
	@echo "installing the service into $(VENV) ..."
	$(INSTALL) service
	@touch $@

$(BIN)/.dev: $(BIN)/python pyproject.toml constraints.txt
	@echo "installing the development environment into $(VENV) ..."
	$(INSTALL) dev
	@touch $@ $(BIN)/.service

$(GPU)/.installed: $(BIN)/.dev constraints.txt tests/gpu/build_stand_in.py $(wildcard tests/gpu/stand_in/*.c)
	@echo "installing onnxruntime-gpu into $(GPU) ..."
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps --upgrade --target $(GPU)/site onnxruntime-gpu
	$(BIN)/python tests/gpu/build_stand_in.py $(GPU)/site $(GPU)/lib
	@touch $@
