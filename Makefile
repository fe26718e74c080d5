# `make check` is what the project's checks run; everything else is for working on it.
PYTHON ?= python

.PHONY: setup install test lint format check generated demo bench

setup:            ## install the package with everything needed to work on it
	$(PYTHON) -m pip install -c constraints.txt '.[test,lint,demo]'

install:          ## put the checkout's package into the environment again, quickly
	$(PYTHON) -m pip install -q --no-deps .

test: install     ## run the tests against the installed package; k=WORD selects
	pytest $(if $(k),-k '$(k)')

lint:             ## style, types, layers
	ruff check .
	ruff format --check .
	mypy
	lint-imports

format:           ## put the code into shape
	ruff check --fix .
	ruff format .

generated:        ## write the help pages, the completions and docs/commands.md again
	$(PYTHON) docs/generate.py

demo:             ## train the built-in model again (about an hour on two cores)
	$(PYTHON) -m demo.train

bench:            ## measure start-up and sampling
	$(PYTHON) benchmarks/startup.py

check: lint test
