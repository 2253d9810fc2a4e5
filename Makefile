# `make demo` and `make test` work on a fresh Linux machine with Python 3.11+, pip and make: each makes .venv by itself.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PEERS := .venv-peers
PEERS_INSTALLED := $(PEERS)/.installed
PACKAGES := gateway model_workers feature_store experiments contracts telemetry settings http_server analysis experiments_cli demo

.PHONY: help install peers demo test check integration fault bench bench-worker load lock clean

help: ## show what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

install: $(INSTALLED) ## make .venv from the hash-pinned lock

# The lock names versions and hashes only; which registry serves them is the machine's own setting.
$(INSTALLED): locks/development.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=python3.x")'
	$(PYTHON) -m venv $(VENV)
	$(RUN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r locks/development.txt
	$(RUN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

peers: $(PEERS_INSTALLED) ## make .venv-peers: MLServer and the KServe client, which some tests and one benchmark meet

$(PEERS_INSTALLED): locks/peers.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r locks/peers.txt
	@touch $@

demo: $(INSTALLED) ## the main job on this machine; Ctrl-C ends it
	$(RUN)/sekisho-demo $(ARGS)

test: $(INSTALLED) check-static ## everything that must hold
	$(RUN)/python -m pytest $(ARGS)

check: $(INSTALLED) check-static ## lint, types, import contracts, fast tests
	$(RUN)/python -m pytest -m "not integration and not fault" $(ARGS)

.PHONY: check-static
check-static: $(INSTALLED)
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy $(addprefix -p ,$(PACKAGES))
	$(RUN)/lint-imports

integration: $(INSTALLED) ## tests over real processes
	$(RUN)/python -m pytest -m integration $(ARGS)

fault: $(INSTALLED) ## tests that kill, stall and cut, at full length, and their report
	$(RUN)/python -m pytest tests/fault -m fault --fault-full --fault-report .fault-report.jsonl $(ARGS)
	$(RUN)/python -m tests.fault.report .fault-report.jsonl

.PHONY: hostile
hostile: $(INSTALLED) ## a million hostile or random requests on both ports, beside checked ones
	$(RUN)/python -m tests.hostile $(ARGS)

.PHONY: simulation
simulation: $(INSTALLED) ## a hundred replicas on a virtual clock: what each mechanism is worth
	$(RUN)/python -m tests.simulation $(ARGS)

.PHONY: conformance
conformance: $(INSTALLED) ## the protocol's checks on any server: URL=http://host:port ARGS="--model NAME"
	$(RUN)/python -m tests.conformance --url "$(URL)" $(ARGS)

bench: $(INSTALLED) ## Sekisho beside the yardstick and the baselines, in one run
	$(RUN)/python -m loadtests.bench $(ARGS)

.PHONY: soak
soak: $(INSTALLED) ## ten minutes of steady load: memory, latency, every answer and every row of the log
	$(RUN)/python -m loadtests.soak $(ARGS)

bench-worker: $(INSTALLED) $(PEERS_INSTALLED) ## a worker beside MLServer, in one run
	$(RUN)/python -m loadtests.worker_bench $(ARGS)

load: $(INSTALLED) ## locust against a running demo, headless, 30 s
	$(RUN)/locust -f loadtests/locustfile.py --headless --users 20 --spawn-rate 20 --run-time 30s \
	  --host http://127.0.0.1:8080 --only-summary $(ARGS)

# Needs uv, only here: it resolves for every Python version and platform at once.
LOCK := uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes --no-header \
  --no-annotate --no-emit-index-url --no-emit-find-links
lock: ## resolve the locks anew
	$(LOCK) --extra demo --extra grpc --extra loadtests --group dev -o locks/development.txt
	for image in gateway worker-onnx worker-lightgbm analysis; do \
	  $(LOCK) --extra $$image -c locks/development.txt -o locks/$$image.txt || exit 1; done
	$(subst pyproject.toml,locks/peers.in,$(LOCK)) -o locks/peers.txt

clean: ## remove what was built and measured here
	rm -rf $(VENV) $(PEERS) dist .fault-report.jsonl .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
