# make demo   the whole method on the embedded default
# make paper  every step to the paper's tables of DATASET (default: mini), with ARGS; goes on where it was stopped
# make test   ruff, mypy, and the tests with their coverage
# make test-pythons   the quick tests on every Python from 3.10 to 3.13 that is on the machine, each in its environment
# make test-transformers   captioning, weights and networks of transformers, open_clip and timm, in an environment of its own
# make bench  speed and memory, beside transformers and open_clip, in an environment of its own
# make mutants   which small faults in the core the tests would miss (docs/mutants.md); some hours on two cores
# make audit  known vulnerabilities of the installed packages
# Each makes the virtual environment where it is missing. PYTHON chooses the interpreter.
PYTHON ?= python3
DATASET ?= mini
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo world paper test test-pythons lint mutants audit test-transformers bench clean

$(VENV)/.installed: requirements.txt constraints.txt tests/requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -r tests/requirements.txt
	touch $@

world: $(VENV)/.installed
	$(BIN)/python -m mini.render
	$(BIN)/python caption.py --dataset mini --stage filter

demo: world
	$(BIN)/python train_mini.py

paper: $(VENV)/.installed
	$(BIN)/python reproduce.py --dataset $(DATASET) $(ARGS)

test: $(VENV)/.installed lint
	$(BIN)/python -m pytest --cov --cov-report=term:skip-covered

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/mypy

# The longest tests are left out: killed runs, several processes, and the training of the mini CLIP.
test-pythons:
	for version in 3.10 3.11 3.12 3.13; do \
	    command -v python$$version > /dev/null || { echo "python$$version is not here"; continue; }; \
	    test -d .venv-$$version || python$$version -m venv .venv-$$version || exit; \
	    .venv-$$version/bin/python -m pip install --quiet -c constraints.txt -r tests/requirements.txt || exit; \
	    echo "python$$version"; \
	    .venv-$$version/bin/python -m pytest --ignore=tests/mini --ignore=tests/engine/training/test_interruption.py \
	        --ignore=tests/engine/training/test_distributed.py || exit; \
	done

# Results stay in mutants/: the same command again tests what has changed. To choose: MODULES="models.gcn*" JOBS=1
MODULES ?=
JOBS ?= 2
mutants: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet mutmut==3.8.1
	OMP_NUM_THREADS=1 $(BIN)/mutmut run --max-children $(JOBS) $(foreach module,$(MODULES),"$(module)")
	$(BIN)/mutmut results

audit: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet pip-audit
	$(BIN)/python tests/audit.py

.venv-transformers/.installed: tests/requirements-transformers.txt
	$(PYTHON) -m venv .venv-transformers
	.venv-transformers/bin/python -m pip install --quiet --upgrade pip
	.venv-transformers/bin/python -m pip install --quiet -r tests/requirements-transformers.txt
	touch $@

# transformers' BLIP-2 and LAVIS need different versions of transformers; open_clip and timm are here, too.
test-transformers: .venv-transformers/.installed
	.venv-transformers/bin/python -m pytest tests/captions/test_captioner.py tests/captions/test_captioning.py \
	    tests/captions/test_caption_script.py tests/captions/test_chat_model.py tests/clip/test_clip_parity.py \
	    tests/models/test_timm_encoder.py tests/engine/features/test_frozen_encoder.py

.venv-bench/.installed: benchmarks/requirements.txt tests/requirements-transformers.txt
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet --upgrade pip
	.venv-bench/bin/python -m pip install --quiet -r benchmarks/requirements.txt
	touch $@

bench: .venv-bench/.installed
	.venv-bench/bin/python -m benchmarks.run

clean:
	rm -rf $(VENV) .venv-3.* .venv-transformers .venv-bench mutants runs features
