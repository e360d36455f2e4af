# kneeoa: every target is one line of something you could type yourself.
PYTHON ?= python3
BIN := .venv/bin
PORT ?= 8080

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

.venv/ready: requirements.lock pyproject.toml
	@echo "setting up .venv (Python, pinned packages; a few minutes the first time)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

setup: .venv/ready  ## virtual environment with pinned packages

archives: setup  ## build model_store/*.mar and *.war where their sources changed
	@$(BIN)/python deploy/archives.py

serve: archives  ## start TorchServe and leave it running (PORT=8080)
	@$(BIN)/python deploy/server.py start --port $(PORT) --plain-models

stop:  ## stop it
	@$(BIN)/python deploy/server.py stop

demo: archives  ## start, grade a sample film, write out/, stop
	@$(BIN)/python deploy/demo.py

samples: setup  ## redraw samples/*.dcm from their seeds
	@$(BIN)/python -m training.make_samples

docs: samples  ## rewrite README's reply and picture from the service itself
	@$(BIN)/python -m docs.refresh

lint: setup  ## ruff and mypy
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

test: lint archives  ## everything, the end-to-end tests against a real server included
	@$(BIN)/python -m pytest

train-detector: setup  ## DATA=folder in the form of the public KL set
	@$(BIN)/python -m training.train_detector $(if $(DATA),--data $(DATA)) --out runs/detector

train-grader: setup  ## DATA=folder in the form of the public KL set
	@$(BIN)/python -m training.train_grader $(if $(DATA),--data $(DATA)) --detector model_src/weights/detector.safetensors --out runs/grader

evaluate: setup  ## grade crops and composed films of DATA and write the numbers
	@$(BIN)/python -m training.evaluate --data $(DATA) --out runs/evaluation

clean:  ## remove what was built (not .venv)
	@rm -rf model_store/*.mar model_store/*.war out .run

.PHONY: help setup archives serve stop demo samples docs lint test train-detector train-grader evaluate clean
.DEFAULT_GOAL := help
