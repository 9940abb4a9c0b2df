# Everything a person or CI does here. Needs Python 3.11 or newer and make, nothing else.
# `make run` and `make test` are the two to know; `make help` lists the rest.

UV_VERSION := 0.13.8
UV := .venv/uv-$(UV_VERSION)/bin/uv
PY := .venv/bin/python
CODE := manage.py batcher batching delivery sandbox tests $(wildcard benchmarks)

# A server for `make test-services`; give others in the environment.
SERVICES_DATABASE_URL := $(or $(DATABASE_URL),postgresql://postgres@127.0.0.1:5432/batcher)
SERVICES_RABBITMQ_URL := $(or $(RABBITMQ_URL),amqp://guest:guest@127.0.0.1:5672/)

# Most tests wait for processes and sockets more than they compute.
TESTERS := 4

# A virtual environment that happens to be active is not the one we mean.
unexport VIRTUAL_ENV PYTHONHOME PYTHONPATH
# Where nothing compiled is kept, each of many processes compiles everything again: a minute of each test run.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help run test test-services check lint types imports migrations fmt docs bench fuzz screenshots clean
.DEFAULT_GOAL := help

help: ## say what there is
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1|\2/p' Makefile | awk -F '|' '{printf "%-20s %s\n", $$1, $$2}'

run: .venv/runtime.stamp ## set everything up and serve on http://127.0.0.1:8000 (PORT)
	@exec $(PY) manage.py run

test: .venv/dev.stamp ## set everything up and run the tests on SQLite, without services
	@env -u DATABASE_URL -u DATABASE_URL_FILE -u RABBITMQ_URL -u RABBITMQ_URL_FILE $(PY) -m pytest -n $(TESTERS) --dist loadgroup $(ARGS)

test-services: .venv/dev.stamp ## run the tests on PostgreSQL and RabbitMQ; a missing server is a failure
	@DATABASE_URL="$(SERVICES_DATABASE_URL)" RABBITMQ_URL="$(SERVICES_RABBITMQ_URL)" BATCHER_REQUIRE_SERVICES=1 \
		$(PY) -m pytest -n $(TESTERS) --dist loadgroup $(ARGS)

check: lint types imports migrations test ## what CI runs, but for the services

lint: .venv/dev.stamp ## look for slips and for lines that `make fmt` would change
	@$(PY) -m ruff check $(CODE)
	@$(PY) -m ruff format --check $(CODE)

types: .venv/dev.stamp ## check the types
	@$(PY) -m mypy

imports: .venv/dev.stamp ## check who may import whom
	@$(PY) .venv/bin/lint-imports

migrations: .venv/dev.stamp ## check that models and migrations agree
	@$(PY) manage.py makemigrations --check --dry-run

fmt: .venv/dev.stamp ## format the code
	@$(PY) -m ruff check --fix --quiet $(CODE) || true
	@$(PY) -m ruff format $(CODE)

docs: .venv/runtime.stamp ## write what is generated: README's table of variables, docs/lifecycle.md
	@$(PY) manage.py environment --write
	@$(PY) manage.py lifecycle --write

bench: .venv/dev.stamp ## measure; see benchmarks/
	@$(PY) -m benchmarks $(ARGS)

fuzz: .venv/dev.stamp ## ask a fresh Batcher for ten minutes all that its OpenAPI document allows (ARGS="--seconds 3600")
	@$(PY) -m tests.openapi $(ARGS)

screenshots: .venv/dev.stamp ## photograph a fresh panel with telling rows into docs/images (needs Chromium)
	@$(PY) -m tests.browser.screenshots $(ARGS)

clean: ## remove the virtual environment and caches; data stays
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

# Setting up. Each stamp is made anew only when the lock file changed.

.venv/dev.stamp: uv.lock $(UV)
	@echo "batcher: installing what tests and checks need" >&2
	@$(call SYNC,)
	@touch .venv/runtime.stamp .venv/dev.stamp

.venv/runtime.stamp: uv.lock $(UV)
	@echo "batcher: installing what it needs to run" >&2
	@$(call SYNC,--no-dev --inexact)
	@touch .venv/runtime.stamp

$(UV):
	@test -x $(PY) || $(FIND_PYTHON) -m venv .venv
	@$(PY) -m pip --version >/dev/null 2>&1 || $(PY) -m ensurepip >/dev/null
	@$(PY) -m pip install --quiet --disable-pip-version-check --target .venv/uv-$(UV_VERSION) "uv==$(UV_VERSION)"

# uv brings its own certificates; where a company's proxy signs, those of the system are the right ones.
SYNC = $(UV) sync --quiet --frozen --python $(PY) $(1) 2>/dev/null || \
	$(UV) sync --quiet --frozen --python $(PY) $(1) --system-certs

# The newest Python that is here, works, and can make a virtual environment.
define FIND_PYTHON
$$(for python in python3.13 python3.12 python3.11 python3 python; do \
	if "$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
		echo "$$python"; exit; fi; done; \
	echo "batcher: needs Python 3.11 or newer with its venv module (Debian: apt install python3-venv)" >&2; \
	echo false)
endef
