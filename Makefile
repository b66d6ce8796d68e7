# Everything a fresh machine needs is Python 3.11+, make and git: uv is bootstrapped into .uv/.
PYTHON ?= python3
UV := .uv/bin/uv
export UV_PYTHON := $(PYTHON)
RUN := $(UV) run --frozen --extra demo

.PHONY: demo test lint types build clean

$(UV):
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; set PYTHON=") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv .uv
	.uv/bin/python -m pip install --quiet 'uv>=0.9,<1'

demo: $(UV)  ## record a scripted conversation through a real pipeline to an embedded S3 server
	$(UV) run --frozen --no-dev --extra demo recorder demo

test: $(UV)  ## all tests of the default suite
	$(RUN) pytest

lint: $(UV)
	$(RUN) ruff check .
	$(RUN) ruff format --check .

types: $(UV)
	$(RUN) mypy

build: $(UV)
	$(UV) build --quiet --out-dir dist

clean:
	rm -rf .venv .uv dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
