# Two commands matter: `make run` and `make test`. Both set up everything they need, on a bare Debian or Ubuntu too.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Two processes of pytest: many tests wait for other processes more than they compute.
PARALLEL := -n 2 --dist loadfile

.PHONY: help
help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

# Debian and Ubuntu split venv off Python. As root it is installed; anybody else is told what to type.
$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
		test "$$(id -u)" = 0 && command -v apt-get >/dev/null && \
		apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y python3 python3-venv >/dev/null; } || { \
		echo "$(PYTHON) has no venv module; on Debian and Ubuntu: apt install python3 python3-venv"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "raftkv needs Python 3.11 or newer, $(PYTHON) is $$($(PYTHON) -V); name another: make PYTHON=python3.12 ..."; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	@echo '$(CURDIR)/jepsen-like' > "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/raftkv_jepsen.pth"  # found here, never packaged
	@$(BIN)/python -m compileall -q raftkv cli jepsen-like  # where Python may not write bytecode itself, every start would compile anew
	@touch $@

.PHONY: setup
setup: $(STAMP) ## virtual environment with everything in it

.PHONY: run
run: $(STAMP) ## the main job on real data: load, kill the leader, verify (KEEP=1 keeps the cluster up)
	@KEEP="$(KEEP)" $(BIN)/python examples/main_job.py

.PHONY: check
check: $(STAMP) ## seconds: layers, types, style, unit, paper, scenarios
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/pytest -q $(PARALLEL) tests/unit tests/paper tests/scenarios tests/tidy

.PHONY: test
test: check network-tools ## everything for CI: check, simulation, properties, real processes, namespaces as root
	$(BIN)/pytest -q $(PARALLEL) $(wildcard tests/sim tests/properties tests/differential)
	$(BIN)/pytest -q $(PARALLEL) -m "not long" tests/integration
	$(BIN)/pytest -q tests/jepsen
	$(BIN)/pytest -q $(PARALLEL) -m "not long" tests/etcd_clients
	@$(MAKE) --no-print-directory test-torch ONLY="not long"

.PHONY: test-etcd-clients
test-etcd-clients: $(STAMP) network-tools ## etcdctl, client libraries and tooz against raftkv (SERVERS_UNDER_TEST=raftkv,etcd for both); ten minutes
	$(BIN)/pytest -q $(PARALLEL) -m "not patroni" tests/etcd_clients

.PHONY: test-patroni
test-patroni: $(STAMP) ## PostgreSQL under Patroni 4 with three members of raftkv as its etcd; as root PostgreSQL is installed
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && ! ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1; then \
		apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y postgresql >/dev/null; fi
	$(BIN)/pytest -q -rs -m patroni tests/etcd_clients

MINUTES ?= 60
.PHONY: sim
sim: $(STAMP) ## simulated clusters from fresh seeds (MINUTES=60 FLAGS="--data --leases"); a failing seed prints the line that replays it
	$(BIN)/python -m tests.sim --minutes $(MINUTES) $(FLAGS)

.PHONY: jepsen
jepsen: $(STAMP) network-tools ## real daemons under real faults, with a verdict (MINUTES=60 FLAGS="--nemesis partition,power --nodes 5"); docs/fault-testing.md
	$(BIN)/python jepsen-like --time $$(( $(MINUTES) * 60 )) $(FLAGS)

SEEDS ?= 1000
.PHONY: differential
differential: $(STAMP) ## the store beside a real etcd, fresh stories (SEEDS=1000); a failing one is shrunk and prints its replay
	$(BIN)/python -m tests.differential --seeds $(SEEDS)

.PHONY: differential-doors
differential-doors: $(STAMP) ## raftkv beside a real etcd through gRPC and JSON: stories, watch streams, users and roles (SEEDS=1000 of each)
	$(BIN)/python -m tests.differential.doors all --seeds $(SEEDS)

.PHONY: test-compose
test-compose: $(STAMP) ## the compose cluster with a real Docker engine; says why it skips without one
	$(BIN)/pytest -q -rs -o faulthandler_timeout=900 tests/e2e

# torch is a gigabyte on disk that nothing else needs: it stays beside the virtual environment's own packages.
TORCH := $(VENV)/torch
$(TORCH)/.installed: $(STAMP)
	$(BIN)/pip install --quiet --disable-pip-version-check --target $(TORCH) torch==2.13.0 numpy
	@touch $@

.PHONY: test-long
test-long: $(STAMP) network-tools ## the tests of real processes that take too long for CI
	$(BIN)/pytest -q $(PARALLEL) -m long tests/integration

ONLY ?=
.PHONY: test-torch
test-torch: $(TORCH)/.installed ## PyTorch on a real cluster: the store beside TCPStore, jobs of four ranks, torchrun
	PYTHONPATH=$(CURDIR)/$(TORCH) $(BIN)/pytest -q -rs $(PARALLEL) -m "$(ONLY)" tests/pytorch

.PHONY: bench
bench: $(STAMP) ## raftkv against etcd on this machine; prints a table, takes minutes
	$(BIN)/python bench/compare.py

.PHONY: etcd-stubs
etcd-stubs: $(STAMP) ## make the etcd messages anew from raftkv/etcdpb/*.proto
	$(BIN)/python -m raftkv.etcdpb.generate

# The namespace tests need `ip` and `nft`, the disk faults `strace`, bad links `iptables`, bad clocks libfaketime. As root they are installed; without,
# those tests and faults skip and say so.
.PHONY: network-tools
network-tools:
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && ! { command -v ip && command -v nft && command -v strace && command -v iptables && ls /usr/lib/*/faketime/libfaketime.so.1; } >/dev/null 2>&1; then \
		apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y iproute2 nftables strace iptables libfaketime >/dev/null \
		|| echo "iproute2, nftables, strace, iptables or libfaketime cannot be installed: the tests that need them will be skipped"; fi

.PHONY: clean
clean: ## remove what was built, the virtual environment included
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
