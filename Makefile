# smtpd_ps: targets are listed by `make help`. Needs GNU make, git, pip and Python 3.11 or newer.

PYTHON ?= python3
DESTDIR ?=
OS ?= $(shell uname -s)
MAKEFLAGS += --no-print-directory
SHELL = /bin/sh
export PIP_DISABLE_PIP_VERSION_CHECK = 1
export PIP_ROOT_USER_ACTION = ignore

# Found only when a target wants it, so that `make help` needs no Python.
python = $(or $(shell .ci/python '$(PYTHON)'),$(error no usable Python))
version := $(shell '$(PYTHON)' -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
ifeq ($(version),)
version := $(patsubst python%,%,$(notdir $(PYTHON)))
endif
venv = .venv-$(version)
bin = $(venv)/bin

.DEFAULT_GOAL := help
.PHONY: help all demo test test-passlib check docs interop bench bench-backlog bench-quick crash fuzz install clean

help: ## say what there is (what `make` alone does)
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 22
	@echo 'PYTHON=python3.13 chooses another Python; each has an environment of its own, .venv-VERSION.'

all: test check ## test and check

demo: $(venv)/.run ## run the server, send a mail through it, show it, and remove everything again
	$(bin)/python -m smtpd_ps.cli.demo

test: $(venv)/.test ## all tests that need no other mail software; TESTS=tests/pure chooses
	-@sh .ci/need openssl mksh strace
	$(bin)/python -m pytest $(TESTS)

# passlib 1.7.4 has the same import name as libpass: it takes its place in an environment of its own.
test-passlib: $(venv)-passlib/.test ## the password tests with passlib 1.7.4, which the BSDs' ports have
	$(venv)-passlib/bin/python -m pytest tests/lookup tests/cli

check: $(venv)/.check ## lint, types, layers, sizes, banned words, shell scripts, manual pages
	@sh .ci/need shellcheck mandoc
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/mypy
	$(bin)/lint-imports
	$(bin)/python tests/arch/check_tree.py
	shellcheck .ci/* rc.d/smtpd_ps.freebsd rc.d/smtpd_ps.openbsd tests/service/*.subr
	mandoc -T lint -W warning docs/man/*.[1-9]
	$(bin)/python -m pytest tests/arch/test_arch_checks_fail.py

docs: $(venv)/.run ## write what is generated anew: tables of docs/ARCHITECTURE.md, lists of modules
	$(bin)/python tests/arch/generate_architecture.py
	$(bin)/python tests/arch/loaded_modules.py

# The packages' own services are kept from starting: the tests start theirs in scratch directories.
interop: $(venv)/.test ## delivery to real mail stores and servers, and from real clients (installs them)
	@sh .ci/need -n $$(cat tests/interop/packages.txt)
	$(bin)/python -m pytest tests/interop

# Needs root and Debian. The other servers are unpacked into a cache and run from there, never installed.
# BENCH='--peers smtpd_ps,postfix+tuned --workloads W1 --runs 5' chooses; see docs/PERFORMANCE.md.
bench: $(venv)/.run ## measure it beside OpenSMTPD and Postfix: all workloads, five runs, about an hour
	@sh .ci/need strace openssl
	$(bin)/python -m bench $(BENCH)

bench-backlog: $(venv)/.run ## a million queued envelopes: start, memory, show queue; about three minutes
	@test "$$(id -u)" = 0 || { echo "make bench-backlog needs root"; exit 1; }
	$(bin)/python -m bench.backlog $(BENCH)

bench-quick: $(venv)/.run ## the same in under three minutes: four workloads, fewer messages, one run
	@sh .ci/need strace openssl
	$(bin)/python -m bench --quick $(BENCH)

crash: $(venv)/.test ## kill -9 at random under load, root; ROUNDS=200 (the default) takes about 15 minutes, SEED=n
	@test "$$(id -u)" = 0 || { echo "make crash needs root"; exit 1; }
	SPS_CRASH_ROUNDS=$(or $(ROUNDS),200) SPS_CRASH_SEED=$(or $(SEED),20261122) \
		$(bin)/python -m pytest -s tests/whole/test_whole_crash.py

fuzz: $(venv)/.fuzz ## fuzz what parses strangers' bytes, ten minutes a target; FUZZ='--secs 60 commands' chooses
	$(bin)/python tests/fuzz $(FUZZ)

install: ## install below PREFIX (default /usr/local), inside DESTDIR where given
	sh .ci/install '$(python)' '$(DESTDIR)' '$(PREFIX)' '$(OS)'

clean: ## remove what the other targets made
	rm -rf .venv-* build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find smtpd_ps tests -name __pycache__ -type d -prune -exec rm -rf {} +

# The checkout itself is what runs: children are started with `python -I`, which reads the environment's
# path file and nothing else. The plain path file ("compat") costs a child nothing at start.
editable = $(bin)/python -m pip install -qq --config-settings editable_mode=compat -e

$(bin)/python:
	sh .ci/venv '$(python)' $(venv)

$(venv)/.run: pyproject.toml | $(bin)/python
	$(editable) '.[demo]'
	@touch $@

$(venv)/.test: pyproject.toml | $(bin)/python
	$(editable) '.[test]'
	@touch $@ $(venv)/.run

$(venv)/.fuzz: pyproject.toml | $(bin)/python
	$(editable) '.[fuzz]'
	@touch $@ $(venv)/.test $(venv)/.run

$(venv)-passlib/.test: pyproject.toml
	sh .ci/venv '$(python)' $(venv)-passlib
	$(venv)-passlib/bin/python -m pip install -qq --config-settings editable_mode=compat -e '.[test]'
	$(venv)-passlib/bin/python -m pip uninstall -qq -y libpass
	$(venv)-passlib/bin/python -m pip install -qq passlib==1.7.4
	@touch $@

$(venv)/.check: pyproject.toml | $(bin)/python
	$(editable) '.[test,check]'
	@touch $@ $(venv)/.test $(venv)/.run
