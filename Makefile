PYTHON ?= python3
PYTHONS ?= $(shell sh .ci/pythons)
STRICT = -Csetup-args=-Dstrict=true

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

demo:  ## .venv, a real kernel, a runaway cell beside other work, and a table of what happened
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	.venv/bin/python -m pip install -q . jupyter_client
	cd .venv && bin/python -m opencoro_ipy demo

test:  ## everything, on every Python >= 3.11 there is
	@test -n "$(PYTHONS)"
	@set -e; for py in $(PYTHONS); do \
	  v=$$($$py -c 'import sys; print("%d.%d" % sys.version_info[:2])'); venv=.venvs/$$v; \
	  echo "== Python $$v"; \
	  test -x $$venv/bin/python || $$py -m venv $$venv; \
	  $$venv/bin/python -m pip install -q $(STRICT) '.[test]' 2>/dev/null || \
	    { $$venv/bin/python -m pip install -q -U pip; $$venv/bin/python -m pip install -q $(STRICT) '.[test]'; }; \
	  $$venv/bin/python -m pip install -q --no-deps --force-reinstall $(STRICT) .; \
	  $$venv/bin/python -m ruff check opencoro_ipy tests; \
	  PYTHONSAFEPATH=1 PYTHONFAULTHANDLER=1 $$venv/bin/python -m pytest --durations=5 $(ARGS); \
	done

soak:  ## matplotlib, scipy, pandas, polars, pydantic, lxml in three coroutines at 1 ms slices, two minutes
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	.venv/bin/python -m pip install -q '.[soak]'
	cd .venv && bin/python ../tests/native/soak.py 120

clean:  ## what the targets above made
	rm -rf .venv .venvs build .pytest_cache .ruff_cache .hypothesis

.PHONY: help demo test soak clean
