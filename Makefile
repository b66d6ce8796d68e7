# Everything a fresh machine needs is Python 3.11+, make and git: uv is bootstrapped into .uv/.
PYTHON ?= python3
UV := .uv/bin/uv
export UV_PYTHON := $(PYTHON)
RUN := $(UV) run --frozen --extra demo

.PHONY: demo test soak bench bench-calls bench-clock lint types build smoke clean

demo: $(UV)  ## record a scripted conversation through a real pipeline to an embedded S3 server
	$(UV) run --frozen --no-dev --extra demo recorder demo

test: $(UV)  ## all tests of the default suite: two at a time, then those that are in real time
	$(RUN) pytest -n 2 --dist worksteal -m "not soak and not realtime"
	$(RUN) pytest -m "realtime and not soak"

soak: $(UV)  ## the long runs too, one of them on a Ray cluster
	$(RUN) --extra ray pytest -m "soak or not soak"

BENCH ?=
bench: $(UV)  ## what recording costs beside Pipecat's recorder; minutes. BENCH='--sessions 1000 --only fleet'
	PYTHONPATH=tests $(RUN) python -m bench $(BENCH)

bench-calls: $(UV)  ## calls of 1, 10 and 60 minutes by themselves, as JSON lines
	$(RUN) python tests/bench/calls.py

CLOCK_JSON ?= bench-clock.json
bench-clock: $(UV)  ## the same calls through this recorder and Pipecat's: how far off each is; minutes
	PYTHONPATH=tests $(RUN) python tests/bench/clock.py --json $(CLOCK_JSON)

lint: $(UV)
	$(RUN) ruff check .
	$(RUN) ruff format --check .

types: $(UV)
	$(RUN) mypy
	MYPYPATH=deploy/examples $(RUN) mypy deploy/examples/*.py

build: $(UV)  ## the wheel and the source distribution, in dist/
	rm -rf dist
	$(UV) build --quiet --out-dir dist

smoke: build  ## the built wheel, installed by itself, used from outside of the source tree
	rm -rf .smoke
	$(UV) venv --quiet .smoke
	$(UV) pip install --quiet --python .smoke/bin/python dist/*.whl
	cd .smoke && bin/python ../tests/smoke/smoke.py

$(UV):
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit(f"Python 3.11 or newer is needed; $(PYTHON) is {v[0]}.{v[1]}. Set PYTHON=...")'
	$(PYTHON) -m venv .uv
	.uv/bin/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9,<1'

clean:
	rm -rf .venv .uv .smoke dist demo-data .pytest_cache .mypy_cache .ruff_cache .hypothesis
