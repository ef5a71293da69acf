SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help check structure fmt test coverage fuzz chaos conformance bench instructions demo deny rules figures verify presubmit profile release reproduce sbom grafana soak image stacks systemd manifests examples-test openapi packages

help: ## Print the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

check: ## Formatting, lints, documentation, the configuration reference, the structure, the bounds that docs/why quotes, the tests that docs/http.md names, a test for each key, the scripts' own tests
	python3 -B -m unittest discover -q -s scripts && python3 -B scripts/bounds.py && python3 -B scripts/http_table.py && python3 -B scripts/source_lines.py && python3 -B scripts/tested_keys.py && python3 -B scripts/structure.py && scripts/config-reference.sh --check && cargo fmt --all --check && cargo clippy --workspace --all-targets -- -D warnings && RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" cargo doc --workspace --no-deps --document-private-items

structure: ## No circle of files, no lictor crate below lictor-http, no function over 80 lines but tables
	python3 -B scripts/structure.py

fmt: ## Format the code
	cargo fmt --all

test: ## All tests: unit, property, and integration against a real Consul
	scripts/deps.sh && scripts/consul.sh && cargo test --workspace $(if $(KEEP_GOING),--no-fail-fast)

coverage: ## The lines of lictor-http that its own tests run; LINES=1 prints the others
	scripts/coverage.sh

fuzz: ## Hostile input against what reads it; TARGET=hpack MINUTES=10 (of processor time, each)
	TARGET=$(TARGET) MINUTES=$(MINUTES) scripts/fuzz.sh

chaos: ## Faults that take minutes, need root (network namespaces, iptables) or libfaketime; ONLY=word picks by name
	scripts/deps.sh chaos && scripts/consul.sh && cargo test -p chaos -p faults -p outages $(if $(KEEP_GOING),--no-fail-fast) -- --ignored --nocapture --skip nothing_grows $(ONLY) && cargo test -p lictor --test blocks $(if $(KEEP_GOING),--no-fail-fast) -- --ignored --nocapture $(ONLY)

soak: ## Mixed traffic, churn and reloads; nothing may grow; MINUTES=30
	scripts/consul.sh && SOAK_MINUTES=$(or $(MINUTES),30) cargo test -p chaos -- --ignored --nocapture nothing_grows

conformance: ## Foreign clients and servers: gRPC, WebSocket, Redis, PostgreSQL, nghttp2, node, curl
	scripts/conformance.sh

examples-test: ## The systems of examples/, started for real, asked, broken; ONLY=portal picks, KEEP=1 ONLY=portal starts one for you
	scripts/examples.sh

openapi: ## Requests made up from /openapi.json, good and bad, against a real lictor on a real Consul; ONLY=/v1/ picks paths, EXAMPLES=100
	EXAMPLES=$(EXAMPLES) scripts/openapi.sh

demo: ## The shop on a real Consul, with things going wrong; KEEP=1 stays up
	scripts/demo.sh

deny: ## What may be linked into the binary
	scripts/deny.sh

rules: ## Prometheus rules and scrape configuration, and its linter on what lictor exports
	scripts/rules.sh

grafana: ## Every query of the dashboard, against a Prometheus that scrapes the demonstration
	scripts/grafana.sh

image: ## The image and a service on it, run for real: probes, drain, exit codes, figures; needs root
	scripts/image.sh

stacks: ## Every stack of examples/compose, started for real; needs root
	scripts/stacks.sh

systemd: ## The units under a real systemd; needs root
	scripts/systemd.sh

manifests: ## Kubernetes manifests, the Helm chart, kustomizations, compose files, units and the Nomad job against their schemas and tools
	scripts/manifests.sh

figures: ## Sizes and times of the release build
	scripts/figures.sh

bench: ## CPU per request against haproxy, nginx and Envoy; ROUNDS=5 SECONDS=3 WHAT=get100,.. PROXIES=lictor,.. JSON=out.json
	scripts/bench.sh $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(SECONDS),--seconds $(SECONDS)) $(if $(WHAT),--what $(WHAT)) $(if $(PROXIES),--proxies $(PROXIES)) $(if $(JSON),--json $(JSON))

instructions: ## Instructions per operation of the request path; fails when one grew by 3 %
	scripts/instructions.sh

profile: ## What the published binary is optimised by, from the loads of make bench
	scripts/profile.sh

release: ## What is published: an archive, a .deb, an .rpm, the chart, the formula, their sha256
	scripts/release.sh

packages: ## The packages of a debug build: the same twice, linted, installed, run, removed in a Debian of their own; needs root
	scripts/packages.sh

reproduce: ## Two release builds of HEAD in two folders, which must be the same byte for byte
	scripts/release.sh --reproduce

sbom: ## The software bill of materials, validated, and the licence texts of what is linked
	scripts/sbom.sh

verify: ## All suites in order of cost, each to its end, and one table; ONLY="test rules", SKIP=image
	@ONLY="$(ONLY)" SKIP="$(SKIP)" MINUTES="$(MINUTES)" python3 -B scripts/verify.py

presubmit: check deny demo test ## What CI runs
