# `make help` lists what there is. Everything happens in .venv; nothing is installed elsewhere, except that root on a bare
# Debian or Ubuntu gets the package python3-venv, and for `make test` those of SCREEN_PACKAGES and Chromium.

PYTHON ?= python3
# Passed to pip, such as PIP_ARGS='--extra-index-url https://download.pytorch.org/whl/cpu' for the small CPU build of torch.
PIP_ARGS ?=
# The Qt binding of `make napari`.
QT ?= PyQt6
THREADS ?= 2

BIN := .venv/bin
# An idle thread that spins takes the core of one that works.
QUIET_THREADS := OMP_NUM_THREADS=$(THREADS) OMP_WAIT_POLICY=passive

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test lint format lab notebooks docs napari bench clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(BIN)/.core ## Find the lesions of a sample case; the report goes to demo_output
	$(BIN)/lesionkit demo -o demo_output

test: $(BIN)/.test $(BIN)/.screen $(BIN)/.browser lint ## Check style and types, then run the tests
	$(QUIET_THREADS) $(BIN)/python -m pytest

lint: $(BIN)/.test ## Check style (ruff) and types (mypy)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(BIN)/.test ## Bring the code into the style that `make lint` checks
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

lab: $(BIN)/.notebooks ## Open the notebooks in JupyterLab
	$(BIN)/jupyter lab notebooks/00_start_here.ipynb

notebooks: $(BIN)/.test $(BIN)/.browser ## Run the notebooks anew and build all their copies
	$(QUIET_THREADS) $(BIN)/python scripts/build_notebooks.py

docs: $(BIN)/.docs ## Build the documentation site in docs/_build; any warning is an error
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build

napari: $(BIN)/.napari ## Open napari on a sample case, ready to step
	$(BIN)/lesionkit napari

bench: $(BIN)/.bench ## Measure speed against peers, as ratios in one process
	$(QUIET_THREADS) $(BIN)/python -m benchmarks

clean: ## Remove .venv and caches
	rm -rf .venv .hypothesis .mypy_cache .pytest_cache .ruff_cache demo_output

# One stamp for each set of packages: made again when what it depends on changes, otherwise a run starts at once.
$(BIN)/.core: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) -c constraints.txt -e .
	@touch $@

$(BIN)/.napari: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) -c constraints.txt -e '.[napari]' $(QT)
	@touch $@

$(BIN)/.%: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) -c constraints.txt -e '.[$*]'
	@touch $@

# The tests of the views look at them in a browser.
CHROMIUM := command -v chromium || command -v chromium-browser || command -v google-chrome

$(BIN)/.browser: | $(BIN)/.test
	@{ $(CHROMIUM); } >/dev/null || if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends chromium fonts-dejavu-core; \
		else \
			echo 'The tests of the views need Chromium; install it first: sudo apt-get install chromium' >&2; exit 2; \
		fi
	@touch $@

# The tests of the napari plugin draw on a virtual screen. The tests start it; here is only what it is made of.
SCREEN_PACKAGES := xvfb xauth libgl1 libegl1 libgl1-mesa-dri libglx-mesa0 libglib2.0-0 libdbus-1-3 libfontconfig1 \
	fonts-dejavu-core libxkbcommon-x11-0 libxcb-cursor0 libxcb-icccm4 libxcb-image0 libxcb-keysyms1 libxcb-randr0 \
	libxcb-render-util0 libxcb-shape0 libxcb-xfixes0 libxcb-xkb1
SCREEN_WORKS := command -v Xvfb >/dev/null && xvfb-run -a $(BIN)/python -c 'import sys; from PyQt6.QtGui import \
	QOpenGLContext; from PyQt6.QtWidgets import QApplication; app = QApplication([]); sys.exit(not QOpenGLContext().create())' \
	>/dev/null 2>&1

$(BIN)/.screen: | $(BIN)/.test
	@$(SCREEN_WORKS) || if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $(SCREEN_PACKAGES); \
		else \
			echo 'The tests of the napari plugin need Xvfb and the libraries of Qt; install them first:' >&2; \
			echo 'sudo apt-get install --no-install-recommends $(SCREEN_PACKAGES)' >&2; exit 2; \
		fi
	@$(SCREEN_WORKS) || { echo 'Qt finds no OpenGL on the virtual screen; try QT_DEBUG_PLUGINS=1 xvfb-run -a' \
		'$(BIN)/lesionkit napari' >&2; exit 2; }
	@touch $@

# Debian packs what a virtual environment needs apart from Python: python3-venv, python3.12-venv.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'lesionkit needs Python 3.11 or newer as $(PYTHON); name another with make PYTHON=...' >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y $(notdir $(PYTHON))-venv; \
		else \
			echo '$(PYTHON) lacks venv; install it first: sudo apt-get install $(notdir $(PYTHON))-venv' >&2; exit 2; \
		fi
	$(PYTHON) -m venv .venv
