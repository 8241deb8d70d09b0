.DEFAULT_GOAL := help
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: help install lock check format lint types imports test unkind mutants planted docs site schema bench rehearsal \
	release audit

help:  ## what can be made
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

# pip would compile 300 MB of Python, of which little is ever imported (180 are CDK's); Python compiles that when it is.
$(BIN)/stepwell: pyproject.toml
	$(PYTHON) -m venv $(VENV)
ifdef LOCKED
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile --require-hashes -r locks/dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile --no-deps --no-build-isolation -e .
else
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile -e '.[dev]'
endif
	@touch $@

lock: $(BIN)/stepwell  ## write the lock files; UPGRADE=1 takes the newest versions
	$(BIN)/pip install --quiet --disable-pip-version-check uv
	$(BIN)/python locks/lock.py $(if $(UPGRADE),--upgrade)

install: $(BIN)/stepwell  ## the environment in .venv; LOCKED=1 takes the versions of locks/dev.txt, as CI does

check: lint types imports test  ## all that must pass; .ci/run runs the rehearsal too

format: $(BIN)/stepwell  ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: $(BIN)/stepwell  ## ruff, and the words of code and docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python docs/words/check.py

types: $(BIN)/stepwell  ## mypy, strict
	$(BIN)/mypy

imports: $(BIN)/stepwell  ## who may import whom
	$(BIN)/lint-imports

test: $(BIN)/stepwell  ## all tests
	$(BIN)/pytest -n 3 --dist worksteal

unkind: $(BIN)/stepwell  ## the behaviour suite on an AWS account at its worst; SEED=2 for another course of things
	$(BIN)/pytest -n 3 --dist worksteal --unkind --unkind-seed=$(or $(SEED),1) tests/behaviour -k aws

mutants: $(BIN)/stepwell  ## do the tests find small faults? SEED=2 for others, N=10 for fewer, ONLY=core,local,aws,engine
	$(BIN)/python -m mutants --seed $(or $(SEED),1) -n $(or $(N),40) $(if $(ONLY),--only $(ONLY))

planted: $(BIN)/stepwell  ## do the tests find each of the bugs in tests/planted?
	STEPWELL_PLANTED=all $(BIN)/pytest tests/planted

docs: $(BIN)/stepwell  ## write the generated pages of docs/, and schemas/
	$(BIN)/python docs/generate
	$(BIN)/python schemas/generate.py

site: $(BIN)/stepwell  ## build the documentation into build/site; a dead link is an error
	PYTHONPATH=docs/site NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

release:  ## build the wheel, the sdist and the SBOM into dist/, and check them
	$(PYTHON) -m release

audit: $(BIN)/stepwell  ## have the locked versions known vulnerabilities?
	$(BIN)/pip install --quiet --disable-pip-version-check pip-audit
	$(BIN)/python locks/audit.py

bench: $(BIN)/stepwell  ## measure this machine (needs wrk)
	$(BIN)/python bench/local.py

node_modules/.bin/cdk: package-lock.json
	npm ci --silent --no-audit --no-fund
	@touch $@

rehearsal: $(BIN)/stepwell node_modules/.bin/cdk  ## deploy, push, run and destroy, on an emulator of AWS (needs npm)
	$(BIN)/python rehearsal/rehearse.py
