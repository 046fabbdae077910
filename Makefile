# make demo: the environment, the sample models, and what a user sees. make test: the tests.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export OMP_NUM_THREADS ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: env models demo demo-real test test-long coverage zoo zoo-pairs zoo-classes fuzz fuzz-readers stress bench lint format clean

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
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-long: env
	$(BIN)/python -m pytest -n 2 -m long

# Lines of composecli that the tests run. Only the test processes are measured: code that runs in a
# child process (the sandboxed worker, and commands that tests start) is not counted, so the true
# figure is higher. To pass more options to pytest: WORDS="--cov-report=html".
coverage: env
	COVERAGE_FILE=$(abspath $(VENV))/coverage $(BIN)/python -m pytest -n 2 --cov=composecli \
		--cov-report=term:skip-covered $(WORDS)

# The packages with the public architectures get a folder of their own, so that they do not change
# the environment or its torch.
ZOO := $(VENV)/zoo
ZOO_PATH := $(CURDIR):$(CURDIR)/tests/zoo/start:$(abspath $(ZOO))

$(ZOO)/.ready: $(VENV)/.ready
	$(BIN)/pip install --quiet --target $(ZOO) --no-deps torchvision==0.28.0
	$(BIN)/pip install --quiet --target $(ZOO) transformers==5.23.0 pillow
	touch $@

# Infer the contract of every model of the zoo in every form, and compare it with running the model.
# Takes about an hour. For a part of it: WORDS="--source torch.nn"; for every model in another dtype:
# WORDS="--dtype float16" or bfloat16.
zoo: $(ZOO)/.ready
	PYTHONPATH=$(ZOO_PATH) $(BIN)/python -m tests.zoo.run $(WORDS)

# Check ordered pairs of the same models, and compare each verdict with running the pair.
# For more pairs: WORDS="--count 2000".
zoo-pairs: $(ZOO)/.ready
	PYTHONPATH=$(ZOO_PATH) $(BIN)/python -m tests.zoo.pairs $(WORDS)

# The libraries of --trust-classes, with what importing them needs, and none with a torch of its own.
$(ZOO)/.classes: $(ZOO)/.ready
	$(BIN)/pip install --quiet --target $(ZOO) --no-deps --requirement tests/zoo/requirements.txt
	touch $@

# How many pickled models of each library load with --trust-classes. Takes ten minutes. For some of
# the libraries: WORDS="timm monai".
zoo-classes: $(ZOO)/.classes
	PYTHONPATH=$(ZOO_PATH) HF_HUB_OFFLINE=1 $(BIN)/python -m tests.zoo.trusted_classes $(WORDS)

# Open and check thousands of mutated files. For other files: WORDS="--count 2000 --seed 3"; for .pt2
# files with a change in what PyTorch evaluates: WORDS="--programs".
fuzz: env
	$(BIN)/python -m tests.safety.fuzz $(WORDS)

# The fuzzer by coverage has a folder of its own. It has no wheel for Python 3.14.
FUZZING := $(VENV)/fuzzing

$(FUZZING)/.ready: $(VENV)/.ready
	$(BIN)/pip install --quiet --target $(FUZZING) --no-deps atheris==3.0.0
	touch $@

# Fuzz the readers that need no torch, guided by the code that an input reaches. Takes ten minutes;
# what fails is in .venv/fuzzing/work/failures. For longer: WORDS="--seconds 3600"; for one of
# them: WORDS="--reader pickles".
fuzz-readers: $(FUZZING)/.ready
	PYTHONPATH=$(CURDIR):$(abspath $(FUZZING)) $(BIN)/python -m tests.safety.fuzz_readers \
		--folder $(FUZZING)/work $(WORDS)

# 200 commands on one cache, eight at a time.
stress: env
	$(BIN)/python -m pytest -n 0 -m long tests/commands/test_shared_cache.py

# Ratios of time and memory to what a user would otherwise run. Takes ten minutes, and 15 GB of disk
# for two models of 2 GB and the files made from them. For smaller models:
# WORDS="--gigabytes 0.2"; for some of the rows: WORDS="--row .pt2".
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
	rm -rf $(VENV) build dist *.egg-info
	rm -rf sample_models/.made sample_models/*.pt sample_models/*.pt2
	rm -rf sample_models/real sample_models/joined
