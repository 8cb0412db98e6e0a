# The README's two commands are `make lab` and `make test`. Both do everything from nothing: a Debian 12 with make, git
# and python3-venv, root and the package registries are enough. `make help` lists the rest.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed

HOSTS ?= 3
LAB_ARGS ?=
TEST_ARGS ?=

# command:package, for what the lab and the tests call
COMMANDS := ip:iproute2 bridge:iproute2 ping:iputils-ping sysctl:procps iptables:iptables nft:nftables
# and what the tests call besides, and the virtual machine of tests/vm
TEST_COMMANDS := systemd-analyze:systemd debootstrap:debootstrap wireguard-go:wireguard-go wg:wireguard-tools \
	ethtool:ethtool qemu-system-x86_64:qemu-system-x86 busybox:busybox-static modprobe:kmod setpriv:util-linux
# and what the CNI plugin is built with, and tested: what it calls
CNI_COMMANDS := gcc:gcc /usr/bin/python3-config:python3-dev /usr/lib/cni/bridge:containernetworking-plugins
CNI_PYTHON ?= /usr/bin/python3
CNI_PROGRAM := $(or $(FLANNEL_CNI_PROGRAM),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/flannel-cni/flannel)
PLUGINS := $(patsubst %/pyproject.toml,%,$(wildcard backends/*/pyproject.toml stores/*/pyproject.toml cni/pyproject.toml))
PROJECTS := pyproject.toml $(PLUGINS:%=%/pyproject.toml)
TREES := flannel_core $(wildcard $(PLUGINS:%=%/flannel_*))
PACKAGES := $(notdir $(TREES))
PINS := requirements/pins.txt
# Of `make dist`. Kubernetes and the clouds bring their SDKs with them, and have other ways to be installed.
EXTRAS ?= alloc,extension,host-gw,ipip,udp,vxlan,wireguard,etcd,sqlite
MANIFEST := deploy/kubernetes/kube-flannel.yml

# uv must not fetch an interpreter: the machine's own is the one that is tested.
export UV_PYTHON_DOWNLOADS := never
export UV_PYTHON := $(BIN)/python
# An activated environment elsewhere must not become the one that is changed.
unexport VIRTUAL_ENV

.PHONY: help install commands compile machine lab test interop vm lint style types imports faults simulate soak fuzz bench dist manifest image cni compiler pins proto clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' Makefile | expand -t 16

install: commands $(STAMP) compile ## install everything into .venv, pinned and byte-compiled

commands: WANTED = $(COMMANDS)
machine: WANTED = $(TEST_COMMANDS)
machine: install
compiler: WANTED = $(CNI_COMMANDS)
commands machine compiler:
	@missing=$$(for pair in $(WANTED); do command -v "$${pair%:*}" > /dev/null || echo "$${pair#*:}"; done | sort -u); \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" -ne 0 ] || ! command -v apt-get > /dev/null; then \
		echo "missing Debian packages: $$(echo $$missing). As root: apt-get install $$(echo $$missing)" >&2; exit 1; \
	fi; \
	echo "apt-get install" $$missing; \
	export DEBIAN_FRONTEND=noninteractive DEBCONF_NOWARNINGS=yes; \
	apt-get update --quiet=2 && apt-get install --yes --quiet=2 --no-install-recommends $$missing > /dev/null

$(STAMP): $(PROJECTS) $(PINS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "$(PYTHON) is missing or older than 3.11: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "installing into $(VENV)"
	@$(BIN)/python -m pip --version > /dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint $(PINS) uv
	@$(BIN)/uv pip install --quiet --compile-bytecode --constraint $(PINS) --build-constraint $(PINS) --group dev \
		--editable '.[all]' $(PLUGINS:%=--editable ./%)
	@touch $@

# Editable trees are compiled by nobody else, least of all where PYTHONDONTWRITEBYTECODE is set, and a start without
# bytecode takes twice as long. Costs 0.1 s when nothing has changed.
compile: $(STAMP)
	@$(BIN)/python -m compileall -q $(TREES)

lab: install ## three hosts on this machine that ping each other's containers (HOSTS=3, LAB_ARGS="--backend host-gw")
	$(BIN)/flannelctl lab --hosts $(HOSTS) $(LAB_ARGS)

test: machine cni ## every test (TEST_ARGS="tests/house -k links"; FLANNEL_TEST_SEED=N repeats the random cases of a run)
	$(BIN)/pytest $(if $(FLANNEL_TEST_SEED),--hypothesis-seed=$(FLANNEL_TEST_SEED)) $(TEST_ARGS)

interop: install ## mixed clusters with Go flannel, and a table of how they fared (FLANNELD_GO=/path/to/a/v0.28.9)
	FLANNELD_GO=$(FLANNELD_GO) $(BIN)/pytest tests/interop

vm: machine ## boot a kernel that has what this one lacks: make vm -- COMMAND runs it in there, make vm all of tests/vm
	$(if $(VM_WORDS),@exec $(BIN)/python -m flannel_core.lab.vm $(VM_WORDS),FLANNEL_VM_WHOLE=1 $(BIN)/pytest tests/vm)

lint: style types imports ## all of the three below

style: $(STAMP) ## ruff: rules and format
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(STAMP) ## mypy --strict over the core and every distribution
	$(BIN)/mypy $(PACKAGES:%=-p %)

imports: $(STAMP) ## who may import whom (.importlinter)
	$(BIN)/lint-imports --no-logo

faults: install ## break everything that can break, in every combination, under running pings; print how long it took
	$(BIN)/python benchmarks/faults.py

simulate: install ## a thousand random sequences of that in memory, a hundred in namespaces: 0 wrong end states
	$(BIN)/python benchmarks/simulate.py

soak: install ## kill -9 random agents of a lab, 50 times; each time the end state must be the same
	$(BIN)/python benchmarks/soak.py

fuzz: install ## a million random packets, and as many datagrams, through the forwarder of the backend udp
	FLANNEL_FUZZ=1000000 $(BIN)/pytest backends/udp/tests tests/udp -k random

bench: install ## start time, memory and programming time, beside Go flannel's
	$(BIN)/python benchmarks/converge.py

dist: $(STAMP) ## in dist/: a wheel of every distribution, and flanneld in one file (EXTRAS=vxlan,etcd: what is in it)
	rm -f dist/*.whl
	$(BIN)/uv build --quiet --wheel --all-packages --out-dir dist
	PYTHON=$(BIN)/python deploy/single-file dist dist/flanneld $(EXTRAS)

manifest: $(STAMP) ## deploy/kubernetes/kube-flannel.yml, from the chart
	cat deploy/kubernetes/namespace.yaml > $(MANIFEST)
	$(BIN)/helm template flannel deploy/chart/kube-flannel --namespace kube-flannel >> $(MANIFEST)

image: ## the container image's file system, without Docker: make image ROOT=DIRECTORY
	sh deploy/image/root . $(ROOT)

cni: $(CNI_PROGRAM) ## the CNI plugin as one program that needs nothing of the host, outside of this tree
	@echo $(CNI_PROGRAM)

$(CNI_PROGRAM): $(wildcard cni/flannel_cni/*.py) cni/flannel_cni/program.c flannel_core/printable.py flannel_core/state_file.py | compiler
	PYTHONPATH=cni:. $(CNI_PYTHON) -m flannel_cni.build $@

pins: $(STAMP) ## resolve every dependency again and write the versions to requirements/pins.txt
	$(BIN)/uv lock --quiet --upgrade
	echo "# Every dependency's version, without hosts. Written by make pins." > $(PINS)
	$(BIN)/uv export --all-packages --all-extras --all-groups --no-hashes --no-emit-workspace --no-header --no-annotate >> $(PINS)

proto: $(STAMP) ## the etcd store's messages, from rpc.proto
	cd stores/etcd && ../../$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. flannel_store_etcd/rpc.proto
	sed -i '1i # mypy: disable-error-code="type-arg"' stores/etcd/flannel_store_etcd/rpc_pb2.pyi

clean: ## remove what make made: .venv, dist, caches
	rm -rf $(VENV) dist .tox .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find $(TREES) tests -name __pycache__ -prune -exec rm -rf {} +

# The words after `make vm --` are no targets, not even those that are.
ifeq ($(firstword $(MAKECMDGOALS)),vm)
VM_WORDS := $(wordlist 2,$(words $(MAKECMDGOALS)),$(MAKECMDGOALS))
.PHONY: $(VM_WORDS)
$(VM_WORDS):
	@:
endif
