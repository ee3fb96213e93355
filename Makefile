PYTHON ?= python3
PYTHONS ?= $(shell sh .ci/pythons)
NEWEST = $(lastword $(PYTHONS))
comma := ,
setup = --config-settings=setup-args=$(1)
STRICT = $(call setup,-Dstrict=true)
# Without stack redzones: greenlet copies stacks as raw memory, across them.
ASAN = $(call setup,-Db_sanitize=address$(comma)undefined) $(call setup,-Db_lundef=false) \
  $(call setup,-Dc_args=--param=asan-stack=0)
# The runtimes come first in a Python that knows nothing of them; libstdc++, for greenlet's exceptions.
PRELOAD = LD_PRELOAD="$$(cc -print-file-name=libasan.so) $$(cc -print-file-name=libstdc++.so)" \
  ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=0:quarantine_size_mb=1 \
  UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
# Tests, and the kernels that they start, import the installed package, not the folder beside them.
PYTEST = PYTHONSAFEPATH=1 PYTHONFAULTHANDLER=1 $(1)/bin/python -m pytest --durations=5

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

demo:  ## .venv, a real kernel, a runaway cell beside other work, and a table of what happened
	.ci/venv $(PYTHON) .venv ''
	cd .venv && bin/python -m opencoro_ipy demo

test: lint  ## everything, on every Python >= 3.11 there is; bench's tests and the soak on the newest (ARGS=...: pytest's, no soak)
	@failed=; for py in $(PYTHONS); do \
	  v=$$($$py -c 'import sys; print("%d.%d" % sys.version_info[:2])'); echo "== Python $$v"; \
	  few=; test $$py = $(NEWEST) || few=--ignore=tests/test_bench.py; \
	  .ci/venv $$py .venvs/$$v test $(STRICT) && $(call PYTEST,.venvs/$$v) $$few $(ARGS) || failed="$$failed $$v"; \
	done; test -z "$$failed" || { echo "failed on Python$$failed" >&2; exit 1; }
	@test -n "$(ARGS)" || $(MAKE) --no-print-directory soak

bench: pythons  ## what preemption costs and what it gives, beside its peers; ARGS=--quick for a minute of it
	.ci/venv $(NEWEST) .venvs/bench bench
	cd .venvs && PYTHONSAFEPATH=1 bench/bin/python -m opencoro_ipy.bench $(ARGS)

soak: pythons  ## matplotlib, scipy, pandas, polars, pydantic, lxml in three overlapping cells at 1 ms slices, two minutes
	.ci/venv $(NEWEST) .venvs/soak test,soak
	$(call PYTEST,.venvs/soak) -s tests/kernel/soak.py

asan: pythons  ## tests/native with the address and undefined-behaviour sanitizers, on the newest Python
	.ci/venv $(NEWEST) .venvs/asan test $(STRICT) $(ASAN)
	$(PRELOAD) $(call PYTEST,.venvs/asan) tests/native $(ARGS)

tsan: pythons  ## the monitor and the signal handler, in C, with the thread sanitizer and then the two others
	.ci/venv $(NEWEST) .venvs/tsan test $(STRICT)
	MONITOR_ROUNDS=600 $(call PYTEST,.venvs/tsan) tests/native/test_tsan.py $(ARGS)

lint: pythons  ## ruff and mypy, in an environment of their own
	@test -x .venvs/lint/bin/ruff -a -x .venvs/lint/bin/mypy || \
	  { $(NEWEST) -m venv .venvs/lint && .venvs/lint/bin/python -m pip install -q ruff mypy; }
	.venvs/lint/bin/ruff check opencoro_ipy tests
	.venvs/lint/bin/mypy opencoro_ipy

clean:  ## what the targets above made
	rm -rf .venv .venvs build .pytest_cache .ruff_cache .mypy_cache .hypothesis

pythons:
	@test -n "$(NEWEST)" || \
	  { echo "no Python >= 3.11 found: put one on PATH, or make ... PYTHONS=/path/to/python" >&2; exit 1; }

.PHONY: help demo test bench soak asan tsan lint clean pythons
