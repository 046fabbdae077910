# make demo: the environment, the sample models, and what a user sees. make test: the tests.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export OMP_NUM_THREADS ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: env models demo demo-real test test-long zoo zoo-pairs fuzz bench lint format clean

env: $(VENV)/.ready

$(VENV)/.ready: tests/requirements.txt setup.cfg setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --requirement tests/requirements.txt
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

models: sample_models/.made

sample_models/.made: $(VENV)/.ready sample_models/generate.py sample_models/factory.py
	$(BIN)/python sample_models/generate.py
	touch $@

demo: models
	$(BIN)/python sample_models/demo.py

demo-real: env
	$(BIN)/python sample_models/real.py

test: env
	$(BIN)/python -m pytest -n 2

test-long: env
	$(BIN)/python -m pytest -n 2 -m long

# Packages with public architectures, in a folder of their own: the environment and its torch stay as they are.
ZOO := $(VENV)/zoo

$(ZOO)/.ready: $(VENV)/.ready
	$(BIN)/pip install --quiet --target $(ZOO) --no-deps torchvision==0.28.0
	$(BIN)/pip install --quiet --target $(ZOO) transformers==5.23.0 pillow
	touch $@

# Every model of the zoo in every form, against what running it shows: about an hour. WORDS="--source torch.nn" for some.
zoo: $(ZOO)/.ready
	PYTHONPATH=$(CURDIR):$(CURDIR)/tests/zoo/start:$(abspath $(ZOO)) $(BIN)/python -m tests.zoo.run $(WORDS)

# Ordered pairs of them: what check says against running the second on what the first gives. WORDS="--count 2000" for more.
zoo-pairs: $(ZOO)/.ready
	PYTHONPATH=$(CURDIR):$(CURDIR)/tests/zoo/start:$(abspath $(ZOO)) $(BIN)/python -m tests.zoo.pairs $(WORDS)

# Thousands of mutated files, each opened and tried. WORDS="--count 2000 --seed 3" for others.
fuzz: env
	$(BIN)/python -m tests.safety.fuzz $(WORDS)

# Ratios of time and memory against what a user would otherwise run: ten minutes, and 15 GB of disk for two models of
# 2 GB and what is made of them. WORDS="--gigabytes 0.2" for smaller ones, WORDS="--row .pt2" for some rows.
bench: env
	$(BIN)/python -m tests.bench.run $(WORDS)

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

format: env
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist *.egg-info sample_models/.made sample_models/*.pt sample_models/*.pt2 sample_models/real sample_models/joined
