# make demo: from nothing to an exported initialization, on built-in glyphs.
# make test: the test suite. Both make .venv first.
# make docs: the documentation as a site, site/index.html.
# TENSORFLOW=2.19 PYTHON=python3.12 make test: with another release, in an
# environment of its own.
PYTHON ?= python3
TENSORFLOW ?=
VENV = .venv$(if $(TENSORFLOW),-$(notdir $(PYTHON))-tf$(TENSORFLOW))
BIN = $(VENV)/bin
# Newer descriptions of data want a newer protobuf than these two releases.
RELEASE = $(if $(TENSORFLOW), 'tensorflow==$(TENSORFLOW).*')$(if $(filter 2.18 2.19,$(TENSORFLOW)), 'tensorflow-metadata<1.18')
# An environment of another Python would become one of both.
WHICH = -c 'import sys; print(sys.version_info[:2])'
REMOVE_OTHER = test "$$($(1)/bin/python $(WHICH) 2> /dev/null)" = "$$($(PYTHON) $(WHICH) 2> /dev/null)" || rm -rf $(1)
# What requirements.txt reads.
REQUIREMENTS = requirements.txt $(patsubst %,requirements/%.txt,training plots tfds dev)
# Test processes: one for each core, and 1.5 GB of memory each.
TESTERS = -n auto --maxprocesses=4 --dist=worksteal
# Tests of the real data sets run where this folder exists.
DATA = ../shared/data
export REPTILE_DATA ?= $(if $(wildcard $(DATA)),$(abspath $(DATA)),)

.PHONY: demo docs flags lint test slow clean

$(VENV)/installed: $(REQUIREMENTS)
	$(PYTHON) -c 'import sys; (3, 11) <= sys.version_info < (3, 14) or sys.exit("TensorFlow needs Python 3.11 to 3.13, this is " + sys.version.split()[0] + ": make PYTHON=python3.13")'
	$(call REMOVE_OTHER,$(VENV))
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt$(RELEASE)
	touch $@

demo: $(VENV)/installed
	@rm -rf runs/demo
	@$(BIN)/python run_omniglot.py --flagfile=configs/omniglot_5way.cfg \
	  --data=synthetic --meta_iters=400 --eval_interval=200 \
	  --eval_interval_samples=32 --eval_samples=64 --run_dir=runs/demo
	@echo
	@echo "What to run next, with $(BIN)/python:"
	@echo "  the paper's Omniglot run    run_omniglot.py --flagfile=configs/omniglot_5way.cfg --run_dir=runs/o5"
	@echo "  another algorithm           the same with --algorithm=fomaml, maml or joint"
	@echo "  draw it yourself            -m reptile_tf.demo"
	@echo "  the initialization          README.md, 'Use an initialization', on runs/demo/initialization"

lint: $(VENV)/installed
	$(BIN)/ruff check .

test: $(VENV)/installed
	$(BIN)/python -m pytest -q $(TESTERS)

slow: $(VENV)/installed $(VENV)/notebook
	$(BIN)/python -m pytest -q $(TESTERS) -m slow

# What runs the tutorial.
$(VENV)/notebook: requirements/notebook.txt $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements/notebook.txt
	touch $@

# The builder reads the code and does not import it: it needs no TensorFlow.
.venv-docs/installed: requirements/docs.txt
	$(PYTHON) -c pass
	$(call REMOVE_OTHER,.venv-docs)
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/pip install --quiet --disable-pip-version-check -r requirements/docs.txt
	touch $@

docs: .venv-docs/installed
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict

# docs/flags.md, after a flag has changed.
flags: $(VENV)/installed
	$(BIN)/python docs/tooling/flags_page.py

# Runs other than the demo's are kept.
clean:
	rm -rf .venv .venv-* site runs/demo build dist *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
