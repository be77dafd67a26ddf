# Two commands: `make serve` and `make test`. Each does all its own set-up.
#
# Only Python >= 3.11, make and a package index are needed. The environment is .venv; every package comes from a lock
# file with hashes, without resolving anything (deploy/locks/README.md says how they are made).

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   ?= .venv
CLIENTS ?= .venv-clients
PEERS  ?= .venv-peers
BIN    := $(VENV)/bin
LOCKS  := deploy/locks
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet
INSTALL := $(PIP) install --no-deps --no-warn-script-location

.DEFAULT_GOAL := help
.PHONY: help serve test check fuzz lint types contracts format lock clean services bench-smoke bench-trust bench-overhead

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 14

serve: $(VENV)/.cpu  ## set up, start engine and gateway on 127.0.0.1:8080, load the demo adapters
	@exec $(BIN)/loramux serve --demo deploy/demo

test: $(VENV)/.dev $(CLIENTS)/.clients services  ## set up and pass every test, with real vLLM
	CLIENTS=$(CLIENTS) $(BIN)/python -m pytest

check: $(VENV)/.dev lint types contracts test  ## lint, types, import contracts, tests

fuzz: $(VENV)/.dev  ## the relay's property tests, for long
	HYPOTHESIS_PROFILE=long $(BIN)/python -m pytest --timeout 1800 tests/conformance/test_framing_fuzz.py tests/unit/test_relay_request.py tests/unit/test_relay_stream.py

lint: $(VENV)/.dev  ## ruff
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.dev  ## mypy strict
	$(BIN)/mypy

contracts: $(VENV)/.dev  ## import-linter
	$(BIN)/lint-imports

format: $(VENV)/.dev  ## rewrite the code's form
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench-smoke: $(VENV)/.cpu $(VENV)/.bench  ## set up, load the gateway that runs (or one of its own) for a minute, write a report
	@sh bench/with_gateway.sh $(BIN)/loramux bench run smoke

bench-trust: $(VENV)/.dev  ## the bench measures itself: against a known mock, beside vLLM's own, and its gate (half an hour)
	@$(BIN)/loramux bench trust --gate-tries 20 --output results/trust.json

bench-overhead: $(VENV)/.bench $(PEERS)/.peers  ## what the gateway costs, beside other gateways, which are set up first (half an hour)
	@sh bench/get_wrk.sh
	@$(BIN)/loramux bench overhead --peers $(PEERS)

lock:  ## make the lock files anew
	PYTHON=$(PYTHON) sh $(LOCKS)/lock.sh

clean:  ## remove the environments
	rm -rf $(VENV) $(CLIENTS) $(PEERS)

services:
	@sh tests/services.sh

$(BIN)/python:
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "loramux needs Python >= 3.11; set PYTHON=..." >&2; exit 1; }
	@echo "Making the environment in $(VENV) (once; some minutes) ..."
	@"$(PYTHON)" -m venv $(VENV)

$(VENV)/.torch: $(LOCKS)/torch.txt | $(BIN)/python
	@sh $(LOCKS)/install_torch.sh $(BIN)/python
	@touch $@

$(VENV)/.cpu: $(LOCKS)/cpu.txt pyproject.toml $(VENV)/.torch
	$(INSTALL) --require-hashes -r $(LOCKS)/cpu.txt
	$(INSTALL) --no-build-isolation -e .
	@touch $@

$(VENV)/.bench: $(LOCKS)/bench.txt pyproject.toml | $(BIN)/python
	$(INSTALL) --require-hashes -r $(LOCKS)/bench.txt
	$(INSTALL) --no-build-isolation -e .
	@touch $@

# What examples/ is run with. A client that can not be installed fails the set-up: its example would go untested.
$(CLIENTS)/.clients: $(LOCKS)/clients.txt | $(BIN)/python
	@echo "Making the environment of clients in $(CLIENTS) (once; a minute) ..."
	@"$(PYTHON)" -m venv $(CLIENTS)
	@$(CLIENTS)/bin/python -m pip --disable-pip-version-check --quiet install --no-deps --no-warn-script-location \
		--require-hashes -r $(LOCKS)/clients.txt
	@touch $@

# What can not be installed is left out of the measurement, which says so.
$(PEERS)/.peers: $(LOCKS)/peers.txt
	@echo "Making the environment of other gateways in $(PEERS) (once; a minute) ..."
	@"$(PYTHON)" -m venv $(PEERS)
	@$(PEERS)/bin/python -m pip --disable-pip-version-check --quiet install --no-deps --no-warn-script-location \
		--require-hashes -r $(LOCKS)/peers.txt && touch $@ \
		|| echo "The other gateways could not be installed: they are left out." >&2

$(VENV)/.dev: $(LOCKS)/dev.txt $(VENV)/.cpu
	$(INSTALL) --require-hashes -r $(LOCKS)/dev.txt
	@touch $@
