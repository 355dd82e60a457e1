# `make demo` and `make test` need nothing but Python 3.11 or later: each makes the
# virtual environment it runs in.

PYTHON ?= python3
VENV ?= .venv
# Processes of one thread each: most tests are too small for more threads.
PYTEST = OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n auto --maxprocesses 4 --dist worksteal

.PHONY: demo test test-slow gpu lint docs wheel clean

demo: $(VENV)/demo
	$(VENV)/bin/python examples/digits_pipeline.py

test: $(VENV)/test
	$(PYTEST)

test-slow: $(VENV)/test $(VENV)/tracking
	$(PYTEST) -m slow

# Without a GPU the tests are skipped, and the benchmark says what is missing.
gpu: $(VENV)/test
	$(VENV)/bin/python -m pytest -m gpu
	mkdir -p output
	$(VENV)/bin/python examples/benchmark_gpu.py --table output/benchmark_gpu.md \
		$(if $(AEFEATURES_DATA),--data $(AEFEATURES_DATA)/mnist.npz)

lint: $(VENV)/lint
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

docs: $(VENV)/docs
	$(VENV)/bin/python -m sphinx -W --keep-going -b html docs docs/_build/html

wheel: $(VENV)/build
	$(VENV)/bin/python .ci/wheel

# An environment with one of the package's extras; the file says that it is complete.
$(VENV)/%: pyproject.toml
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --editable '.[$*]'
	touch $@

clean:
	rm -rf $(VENV) build dist output *.egg-info docs/_build docs/gallery docs/generated
