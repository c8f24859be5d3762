# Each target makes .venv when it is missing and installs into it once; a change of setup.cfg installs again.
# EXTRA=gpu for NVIDIA GPUs, PYTHON=python3.12 for another Python.
PYTHON ?= python3
EXTRA ?= cpu
VENV := .venv
RUN := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed-$(EXTRA)

.PHONY: demo test test-all test-lanes coverage lint docs links fuzz peers engines
.DEFAULT_GOAL := demo

demo: $(INSTALLED)
	$(RUN) -m byol_tf.train

# Three processes, a test file to one of them: many tests wait for others, and two processes left half of two cores idle. The files begin in
# the order of tests/conftest.py, the longest first; by default the files of few tests, some of which are the longest, begin last.
PARALLEL := -n 3 --dist loadfile --no-loadscope-reorder

test: $(VENV)/.installed-test
	$(RUN) -m pytest $(PARALLEL)

# One at a time: many of the long tests measure time or memory.
test-all: $(VENV)/.installed-test
	$(RUN) -m pytest -m "long or not long"

# The fast suite, with the lines and branches that it doesn't reach.
coverage: $(VENV)/.installed-test
	$(RUN) -m pytest $(PARALLEL) --cov --cov-report=term

# The fast suite on each Python and TensorFlow that we say we run on, with every requirement at its lowest, and with the pre-releases of
# TensorFlow and Keras; a venv each, in .venv-lanes.
PYTHON_tf221 := python3.11
PYTHON_tf220 := python3.13
PYTHON_tf219 := python3.12
PYTHON_lowest := python3.11
PYTHON_next := python3.13
LANES := tf221 tf220 tf219 lowest next

test-lanes: $(LANES:%=test-lane-%)

test-lane-%: .venv-lanes/%/.installed
	.venv-lanes/$*/bin/python -m pytest $(PARALLEL)

.venv-lanes/%/.installed: setup.cfg pyproject.toml tests/lanes/%.txt
	$(PYTHON_$*) -m venv .venv-lanes/$*
	.venv-lanes/$*/bin/pip install --quiet --disable-pip-version-check --editable ".[cpu,test]" --constraint tests/lanes/$*.txt
	touch $@

# The pre-release of TensorFlow, and the nightly Keras that it requires: reinstalled alone, since our requirements brought the released one too,
# and both have the same files.
.venv-lanes/next/.installed: setup.cfg pyproject.toml tests/lanes/next.txt
	$(PYTHON_next) -m venv .venv-lanes/next
	.venv-lanes/next/bin/pip install --quiet --disable-pip-version-check --editable ".[cpu,test]" --constraint tests/lanes/next.txt
	.venv-lanes/next/bin/pip uninstall --quiet --disable-pip-version-check --yes keras
	.venv-lanes/next/bin/pip install --quiet --disable-pip-version-check --force-reinstall --no-deps --pre keras-nightly
	touch $@

tests/lanes/lowest.txt: setup.cfg tests/lanes/lowest.py
	$(PYTHON) tests/lanes/lowest.py > $@

.PRECIOUS: .venv-lanes/%/.installed

lint: $(VENV)/.installed-lint
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/lint-imports
	$(VENV)/bin/mypy

# The documentation site, docs/_build/html/index.html; a warning, such as a link that leads nowhere, is an error.
docs: $(VENV)/.installed-docs
	$(VENV)/bin/sphinx-build --quiet --fail-on-warning --keep-going --fresh-env docs docs/_build/html

# Whether the addresses that the pages link to still answer; needs the network.
links: $(VENV)/.installed-docs
	$(VENV)/bin/sphinx-build --quiet --fresh-env -b linkcheck docs docs/_build/links

# The readers of images and configs against inputs guided by coverage, each for so many seconds; what they learned stays in .fuzz.
SECONDS ?= 600
fuzz: $(VENV)/.installed-fuzz
	$(RUN) -m tests.reliability.fuzz_images .fuzz/images -artifact_prefix=.fuzz/ -max_total_time=$(SECONDS)
	$(RUN) -m tests.reliability.fuzz_configs .fuzz/configs -artifact_prefix=.fuzz/ -max_total_time=$(SECONDS)

# The libraries that `python -m benchmarks... --peer` measures beside; apart from ours, since they bring gigabytes of their own.
peers: .venv-peers/.installed

.venv-peers/.installed: benchmarks/peers/requirements.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/pip install --quiet --disable-pip-version-check --requirement $<
	touch $@

# Ray and Beam, for `examples/embed_ray.py`, `embed_beam.py` and their test: 2.8 GB with TensorFlow.
engines: .venv-engines/.installed

.venv-engines/.installed: examples/requirements.txt
	$(PYTHON) -m venv .venv-engines
	.venv-engines/bin/pip install --quiet --disable-pip-version-check --requirement $<
	touch $@

$(VENV)/bin/pip:
	$(PYTHON) -m venv $(VENV)

$(INSTALLED): setup.cfg pyproject.toml | $(VENV)/bin/pip
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --editable ".[$(EXTRA)]"
	touch $@

$(VENV)/.installed-test $(VENV)/.installed-lint $(VENV)/.installed-docs $(VENV)/.installed-fuzz: $(VENV)/.installed-%: $(INSTALLED)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --editable ".[$(EXTRA),$*]"
	touch $@
