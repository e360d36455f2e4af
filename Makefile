# kneeoa: every target is one line of something you could type yourself.
PYTHON ?= python3
BIN := .venv/bin
PORT ?= 8080
WEIGHTS := model_src/weights
# $(call given,data kl-19): --data $(DATA) --kl-19 $(KL_19), each where its variable is set
upper = $(shell echo $1 | tr a-z- A-Z_)
given = $(foreach option,$1,$(if $($(call upper,$(option))),--$(option) $($(call upper,$(option)))))
# $(call flags,quick): --quick where QUICK=1
flags = $(foreach option,$1,$(if $($(call upper,$(option))),--$(option)))

help:  ## show this list
	@awk '/^## / { print "\n" substr($$0, 4) } /^[a-z-]+:.*## / && !/^help/ { name = $$0; sub(/:.*/, "", name); sub(/.*## /, ""); printf "  %-17s%s\n", name, $$0 }' $(MAKEFILE_LIST)

.venv/ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info < (3, 10) and sys.exit("kneeoa needs Python ≥ 3.10, and $(PYTHON) is %d.%d; name another one, as in: make setup PYTHON=python3.11" % sys.version_info[:2])'
	@echo "setting up .venv (Python, pinned packages; a few minutes the first time)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

## Main

setup: .venv/ready  ## virtual environment with pinned packages

demo: archives  ## start, grade a sample film, write out/, stop
	@$(BIN)/python -m deploy.demo

serve: archives  ## start TorchServe and leave it running (PORT=8080)
	@$(BIN)/python -m deploy.server start --port $(PORT) --plain-models
	@$(BIN)/python -m deploy.gateway.launcher refresh

stop:  ## stop it
	@$(BIN)/python -m deploy.server stop

test: lint archives  ## everything that runs here; what needs a missing program is skipped, and named at the end of either part
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --ignore tests/e2e
	@$(BIN)/python -m pytest tests/e2e

test-fast: setup  ## in under two minutes: no servers, no browser, no training
	@$(BIN)/python -m pytest tests/unit tests/paper tests/archive/test_house.py -m "not slow"

test-tools: setup  ## install the programs that tests need beside Python (Debian, Ubuntu)
	@$(BIN)/python -m tests.tools

lint: setup  ## ruff and mypy
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

evaluate: setup  ## DATA=folder [SPLIT=val] [OUT=runs/evaluation] [TASKS=KL,…] [GRADER="a b"] [CORRUPT=all]: metrics.json, predictions.csv, report.md
	@$(BIN)/python -m training evaluate --out $(or $(OUT),runs/evaluation) $(call given,data split tasks grader detector corrupt seed)

manifest: setup  ## KIND=oai|most|oai-most|knee-kl|table DATA=folder OUT=manifest.parquet [CHECK=1] [QUICK=1] [SPLIT=by-subject] [VISITS="V00 V0"] [PROJECTS="15 37"] [VIEWS="PA10 PA05"] [KL_19=1|2|drop] [WORKERS=n]
	@$(BIN)/python -m training manifest $(KIND) $(DATA) $(call given,out split seed visits projects views kl-19 workers) $(call flags,quick check)

crops: setup  ## MANIFEST=oai.parquet DATA=its folder OUT=folder [WORKERS=n]: cut the knees out of a manifest's films, to train on
	@$(BIN)/python -m training crops $(MANIFEST) --out $(OUT) $(call given,data detector workers)

clean:  ## remove what was built, and run folders of servers that are gone (not .venv)
	@rm -rf model_store/*.mar model_store/*.war out
	@test ! -x $(BIN)/python || $(BIN)/python -m deploy.server clean

## Beside the server

archives: setup  ## build model_store/*.mar and *.war where their sources changed [GRADER=weights to serve] [RUNTIME=openvino|eager|inductor, COMPARE=folder of films]
	@$(BIN)/python deploy/archives.py $(call given,grader runtime compare)

gateway: setup  ## HAProxy in front of the running server: TLS, tokens, limits [BIND=127.0.0.1:8443] [CERTIFICATE=pem] [USERS=file]
	@$(BIN)/python -m deploy.gateway.launcher start $(call given,bind certificate users)

gateway-stop: setup  ## stop it
	@$(BIN)/python -m deploy.gateway.launcher stop

monitoring: setup  ## Prometheus and the probe beside the running server: http://127.0.0.1:9090
	@$(BIN)/python -m deploy.monitoring.launcher start

monitoring-stop: setup  ## stop them; what was recorded is kept in .monitoring
	@$(BIN)/python -m deploy.monitoring.launcher stop

image: setup  ## build the container image localhost/kneeoa:VARIANT with buildah [VARIANT=gpu|cpu] [WHEELS=folder] [BASE=image]
	@buildah bud --format docker --tag localhost/kneeoa:$(or $(VARIANT),gpu) --build-arg VARIANT=$(or $(VARIANT),gpu) \
		--build-arg VERSION=$(shell $(BIN)/python -c 'import kneeoa; print(kneeoa.__version__)') --build-arg REVISION=$(shell git rev-parse HEAD) \
		$(if $(BASE),--build-arg BASE=$(BASE)) $(if $(WHEELS),--build-context wheels=$(abspath $(WHEELS))) --file deploy/container/Containerfile .

batch-up: setup  ## register both archives as plain models for batch work [BATCH=8 DELAY=50 WORKERS=1]
	@$(BIN)/kneeoa models up $(call given,batch delay workers)

batch-scale: setup  ## WORKERS=n of each plain model
	@$(BIN)/kneeoa models scale $(call given,workers)

batch-down: setup  ## remove the plain models
	@$(BIN)/kneeoa models down

## Training (docs/training.md; .venv/bin/python -m training lists its commands)

reproduce-paper: setup  ## OAI=folder MOST=folder [INIT=weights] [CONFIG=yaml] [SPLIT=per-knee] [KL_19=2] [QUICK=1] [OUT=runs/paper]: from the releases to the paper's tables beside ours
	@$(BIN)/python -m training reproduce-paper --out $(or $(OUT),runs/paper) $(call given,oai most config init split kl-19 workers seed) $(call flags,quick)

## Measuring and upkeep

bench: archives  ## [PARTS="stages runtimes growth service start", or device with DEVICE=cuda] [FILMS=8] [ROUNDS=5] [THREADS=1] [RUNTIME=…]: one table of ratios (docs/performance.md)
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --group bench
	@$(BIN)/python -m tests.bench.speed $(if $(DEVICE),--parts device) $(call given,parts films rounds threads runtime device seed)

soak: archives  ## thousands of films, good and bad, with kills and a restart on the way [N=5000 CLIENTS=64 BAD=0.3]
	@$(BIN)/python -m tests.bench.soak $(call given,n clients bad seed)

container-test: setup  ## as root: build the image on a Debian of its own, run it without rights, grade, kill, drain (takes long, 30 GB of disk)
	@$(BIN)/python -m pytest -s tests/scale/test_image.py

scale-test: setup  ## that, and what else needs more than one machine: a rolling restart under load, Ray on two nodes with a bucket, torchrun [FILMS=300]
	@KNEEOA_FILMS=$(or $(FILMS),300) $(BIN)/python -m pytest -s tests/scale

fuzz: setup  ## mutated films and messages through both handlers [SECONDS=600]
	@$(BIN)/python -m tests.bench.fuzz $(call given,seconds seed)

metamorphic: setup  ## [DATA=folder] [FILMS=50]: how many grades change when the same films are encoded, exposed or bordered otherwise
	@$(BIN)/python -m tests.bench.metamorphic $(call given,data films seed)

mutation: setup  ## do the tests bite? [MODULES="geometry tasks"] [MUTANTS=30] [SEED=0]: changes the code in one place at a time; each change that no test notices
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --group mutation
	@$(BIN)/python -m tests.bench.mutation $(call given,modules mutants seed)

samples: setup  ## redraw samples/*.dcm from their seeds
	@$(BIN)/python -m training samples

docs: samples  ## rewrite README's picture and docs/api.md's reply from the service itself
	@$(BIN)/python -m docs.refresh

docs-site: setup  ## docs/ as a web site, in out/site; a link that leads nowhere is an error
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

.PHONY: help setup demo serve stop test test-fast test-tools lint evaluate manifest crops clean archives gateway gateway-stop monitoring monitoring-stop image batch-up batch-scale batch-down bench soak container-test scale-test fuzz metamorphic mutation reproduce-paper samples docs docs-site
.DEFAULT_GOAL := help
