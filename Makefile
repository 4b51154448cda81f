# `make check` is what CI runs, in the environment at hand; `.ci/run` makes an environment of its own.
.PHONY: check lint types test

check: lint types test

lint:
	ruff check .
	ruff format --check .

types:
	mypy

test:
	OMP_NUM_THREADS=1 python -m pytest -q -n 2 --dist loadfile
