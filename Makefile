# Each target says what it does, can be repeated, and cleans up when interrupted. `make help` lists them.
.DEFAULT_GOAL := help
SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null && echo $$p && break; done)

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1	/p' Makefile | expand -t 20

setup: $(VENV)/.ready ## install system packages and make .venv
	@tools/setup-system

$(VENV)/.ready: pyproject.toml
	@tools/setup-system
	@echo "making $(VENV) with $(or $(PYTHON),python3)"
	@$(or $(PYTHON),python3) -m venv --clear $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: setup ## restore a checkpointed counter on a containerd 1.7 node; ARCHIVE=file takes yours
	@$(BIN)/python -m tests.e2e.demo $(if $(ARCHIVE),--archive '$(ARCHIVE)') $(if $(BASE),--base '$(BASE)')

# Each of the two has nodes of its own; the longest files come first, so that both end at the same time.
test: setup ## every test, on real nodes too; two files at a time
	@$(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder tests/hostile tests/e2e tests/fuzz tests/unit

hostile: setup ## change checkpoints in every field and forge them by hand, restore some on a real node; figures come last
	@$(BIN)/python -m tests.hostile

fuzz: setup ## feed parsers odd bytes for MINUTES (10), guided by coverage; all share the time; TARGET="tar elf" are some
	@$(BIN)/python -c 'import atheris' 2>/dev/null || $(BIN)/pip install --quiet --disable-pip-version-check --editable '.[fuzz]'
	@$(BIN)/python -m tests.fuzz --minutes $(or $(MINUTES),10) $(addprefix --target ,$(TARGET))

lint: setup ## formatting, types, layers, shell, generated files
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@shellcheck -x nri_plugin/runtime/* tools/setup-system
	@$(BIN)/python tools/protos.py --check
	@$(BIN)/python tools/docs.py --check

bench: setup ## measure, beside rivals; writes build/bench/results.json
	@$(BIN)/python -m tests.bench

docs: setup ## rewrite what docs/ takes from the commands
	@$(BIN)/python tools/docs.py

protos: setup ## compile the .proto files
	@$(BIN)/python tools/protos.py

PACKAGE_TOOLS := rpmbuild rpmlint lintian x86_64-linux-gnu-strip aarch64-linux-gnu-strip

package: setup ## build sdist, wheel, deb, rpm and krew archives into dist/, and check them; RELEASES=URL: where krew finds them
	@for each in $(PACKAGE_TOOLS); do command -v $$each >/dev/null || { echo "package: there is no $$each:" \
		"apt-get install rpm rpmlint lintian binutils-x86-64-linux-gnu binutils-aarch64-linux-gnu" >&2; exit 1; }; done
	@$(BIN)/python -m build --quiet --outdir dist
	@$(BIN)/python -m tools.package --architecture amd64 --architecture arm64
	@lintian --allow-root --fail-on error dist/*.deb
	@rpmlint -c packaging/rpm/rpmlint.toml dist/*.rpm >dist/rpmlint.log || { grep ' E: ' dist/rpmlint.log; exit 1; }
	@$(BIN)/python -m tools.krew $(if $(RELEASES),--releases '$(RELEASES)')

image: setup ## build the daemon's container image into dist/; PUSH=REFERENCE pushes it there instead
	@$(BIN)/python -m tools.image $(if $(PUSH),--reference '$(PUSH)' --push)

clean: ## remove .venv, build output, test nodes and their cache
	@[ ! -x $(BIN)/python ] || $(BIN)/python -m tests.e2e.node.sweep --all
	@rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	@rm -rf "$${XDG_CACHE_HOME:-$$HOME/.cache}/nri-restore"
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help setup demo test hostile fuzz lint bench docs protos package image clean
