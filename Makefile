# What a person can do here, one target each. Everything is installed into .venv, pinned with hashes.

VENV := .venv
BIN := $(VENV)/bin
# The first of these that is Python 3.11 or newer; `make PYTHON=/path/to/python` chooses another.
PYTHON ?= $(shell for name in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$name; break; }; done)
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps
# The build backend warns of editable installs as such, which nobody here can act on.
# With it the distribution of plugins/ that a plugin of the server itself needs (the extra admin-api).
INSTALL_CHECKOUT := PYTHONWARNINGS=ignore $(INSTALL) --no-build-isolation --editable . --editable plugins/authserver-resource
# Nothing is resolved and nothing is built: what a later release of any package asks for does not matter here.
INSTALL_LOCKED := $(INSTALL) --require-hashes --only-binary :all: -r
# One more than CI has cores: while a test waits for a process, another one runs. On larger machines: `make test WORKERS=8`.
WORKERS ?= 3
# How long `make soak` takes.
MINUTES ?= 30
# The release before, for `make upgrade`: a wheel, or a revision. Until there is one, the code before the newest migration.
PREVIOUS ?= $(shell git log -1 --no-merges --diff-filter=A --format=%H^ -- alembic/versions)
# A worker keeps to the tests of its files, so that what a file prepares is prepared once; the first to end helps the other.
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal
# One lock for every Python and system: uv writes down the extras and the markers with which a package is needed.
COMPILE := $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	--no-strip-extras --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"
# The first argument of an error is shown on pages too, of those that the authorization endpoint or a page can end with.
ERRORS := InvalidRequest InvalidRequestUri UnauthorizedClient UnsupportedResponseType InvalidScope InvalidTarget \
	RequestNotSupported RequestUriNotSupported AccessDenied AuthenticationRefused ServerError TemporarilyUnavailable \
	TooManyRequests TooBusy SignInRefused PasswordRefused
LOCALE := authserver/locale
EXTRACT := $(BIN)/pybabel --quiet extract -F $(LOCALE)/babel.cfg -o $(LOCALE)/authserver.pot --project=authserver \
	--copyright-holder="the authserver authors" --sort-by-file --add-location=file --no-wrap $(ERRORS:%=-k %) authserver

# What was compiled once is kept for all processes that tests start, whatever the shell says.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help run test check static compiled coverage clients faults upgrade proxies fuzz timing mutants bench scale growth audit floods soak sbom docs lock messages format clean

help: ## list what can be done
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 16

run: $(VENV)/installed ## serve on http://localhost:6543 with a demo user and demo clients
	@$(BIN)/authserver -c development.ini demo
	@exec $(BIN)/pserve development.ini

test: $(VENV)/developing ## run every test
	$(PYTEST) -m "not slow and not programs"

check: $(VENV)/developing ## run everything that must hold before a change lands
	@$(MAKE) --no-print-directory --jobs=2 static compiled
	$(PYTEST) -m "not programs"

static: $(VENV)/developing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	.ci/audit $(BIN)/pip-audit requirements/run.txt

# Each worker would compile all tests, which takes 20 seconds.
compiled: $(VENV)/developing
	@$(BIN)/python -m pytest --collect-only --quiet >/dev/null 2>&1 || true

coverage: $(VENV)/developing ## run every test, and list the lines that none of them runs
	$(PYTEST) -m "not programs" --cov=authserver --cov-fail-under=98

clients: $(VENV)/developing ## run real programs from npm, Go and Maven against the server
	$(BIN)/python -m pytest -m programs tests/clients
	@# Not only whether they reach a tool call, but how.
	@$(BIN)/python -m pytest -q --no-header -s tests/clients/test_mcp_sdk.py

faults: $(VENV)/developing ## kill, cut and race real server processes for longer than `make test` does
	AUTHSERVER_FAULTS=long $(BIN)/python -m pytest tests/faults tests/web/test_storage_failures.py \
		tests/storage/test_query_plans.py tests/storage/test_store_plans.py tests/storage/test_scale.py

upgrade: $(VENV)/developing ## the wheel of the release before (PREVIOUS=…) and this one at once on one database, and back again
	AUTHSERVER_PREVIOUS=$(PREVIOUS) $(BIN)/python -m pytest tests/faults/test_two_wheels.py

proxies: $(VENV)/developing ## attack the server, and nginx, HAProxy and Caddy before it, for longer than `make test` does
	AUTHSERVER_PROXIES=long $(BIN)/python -m pytest tests/proxies

fuzz: $(VENV)/developing ## send 80,000 messages to all endpoints, right ones and wrong ones, and try each property with 3,000 examples
	AUTHSERVER_FUZZ=long $(BIN)/python -m pytest tests/fuzzing
	@# Every other property, with many more examples than `make test` tries.
	HYPOTHESIS_PROFILE=thorough $(PYTEST) -m "hypothesis and not programs" --ignore=tests/fuzzing

timing: $(VENV)/developing ## compare how long refusals take that must not be told apart (benchmarks/README.md)
	@PYTHONPATH=. $(BIN)/python benchmarks/timing.py

mutants: $(VENV)/developing ## change the rules in one place after the other, and see which change no test notices
	HYPOTHESIS_PROFILE=few $(BIN)/python -m tests.mutants run --max-children $(WORKERS)
	@$(BIN)/python -m tests.mutants results

bench: $(VENV)/developing ## measure the server (benchmarks/README.md)
	$(BIN)/python benchmarks/run.py
	@PYTHONPATH=. $(BIN)/python benchmarks/decisions.py

scale: $(VENV)/developing ## measure what a million tokens cost (benchmarks/README.md)
	@PYTHONPATH=. $(BIN)/python benchmarks/scale.py

growth: $(VENV)/developing ## measure what a database grows by while strangers are refused (benchmarks/README.md)
	@PYTHONPATH=. $(BIN)/python benchmarks/growth.py

audit: $(VENV)/developing ## measure what the audit trail costs, with ten million events (benchmarks/README.md)
	@PYTHONPATH=. $(BIN)/python benchmarks/audit.py

floods: $(VENV)/developing ## measure what honest callers notice of a flood (benchmarks/README.md)
	@$(BIN)/python benchmarks/floods.py

sbom: $(VENV)/developing ## write what a release consists of, with licences, as CycloneDX into dist/
	@rm -rf build/sbom
	@$(BIN)/python -m venv build/sbom
	@build/sbom/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary :all: -r requirements/run.txt
	@build/sbom/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation .
	@build/sbom/bin/python -m pip uninstall --quiet --disable-pip-version-check --yes pip
	@# What the build backend left here; its entry points would hide later ones.
	@rm -rf build/lib build/bdist.* authserver.egg-info
	@mkdir -p dist
	$(BIN)/cyclonedx-py environment --output-reproducible --output-file dist/authserver.cdx.json build/sbom/bin/python

soak: $(VENV)/developing ## a mixed load for 30 minutes (MINUTES=5), then three times what the server can do
	@PYTHONPATH=. $(BIN)/python benchmarks/soak.py --minutes $(MINUTES)

docs: $(VENV)/developing ## build the documentation into docs/_build/html
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet -b html docs docs/_build/html

lock: $(VENV)/developing ## pin the newest allowed versions in requirements/
	$(COMPILE) --extra postgresql --extra metrics --extra redis -o requirements/run.txt setup.cfg
	$(COMPILE) -o requirements/development.txt requirements/development.in
	@# To read setup.cfg a build backend was run; the entry points that it left here would hide later ones.
	@rm -rf authserver.egg-info

messages: $(VENV)/developing ## collect the sentences of the pages, and list those that a language lacks
	$(EXTRACT)
	@# Without the time at which it was written, which makes two branches differ that changed no sentence.
	@grep -v '^"POT-Creation-Date' $(LOCALE)/authserver.pot >$(LOCALE)/authserver.new && mv $(LOCALE)/authserver.new $(LOCALE)/authserver.pot
	@for file in $(LOCALE)/*.po; do \
		$(BIN)/pybabel --quiet update -i $(LOCALE)/authserver.pot -o $$file -l $$(basename $$file .po | tr - _) \
			--no-wrap --no-fuzzy-matching --ignore-obsolete --ignore-pot-creation-date || exit; \
	done
	@$(BIN)/python -m pytest -q --no-header tests/test_translations.py

format: $(VENV)/developing ## format the code and fix what can be fixed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove everything that was made here, the demo database and its secrets too
	rm -rf $(VENV) .local .programs build dist mutants docs/_build .coverage .coverage.* htmlcov *.egg-info
	rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer was found. Install one, or say where it is: make PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { echo "$(PYTHON) cannot make virtual environments. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@echo "Making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/installed: requirements/run.txt setup.cfg | $(BIN)/python
	@echo "Installing what the server runs with"
	@$(INSTALL_LOCKED) requirements/run.txt
	@$(INSTALL_CHECKOUT)
	@$(BIN)/python -m pip check --quiet --disable-pip-version-check
	@touch $@

$(VENV)/developing: requirements/development.txt setup.cfg | $(BIN)/python
	@echo "Installing what tests, checks and documentation need"
	@$(INSTALL_LOCKED) requirements/development.txt
	@$(INSTALL_CHECKOUT)
	@$(BIN)/python -m pip check --quiet --disable-pip-version-check
	@touch $@ $(VENV)/installed
