# make demo   the whole method on the embedded default
# make test   ruff, mypy, and the tests with their coverage
# make test-transformers   captioning by transformers, in an environment of its own
# make bench  speed and memory, beside transformers and open_clip, in an environment of its own
# make audit  known vulnerabilities of the installed packages
# Each makes the virtual environment where it is missing. PYTHON chooses the interpreter.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint audit test-transformers bench clean

$(VENV)/.installed: requirements.txt tests/requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -r tests/requirements.txt
	touch $@

demo: $(VENV)/.installed
	$(BIN)/python -m datasets.mini.build
	$(BIN)/python caption.py --dataset mini --stage filter
	$(BIN)/python train_mini.py

test: $(VENV)/.installed lint
	$(BIN)/python -m pytest --cov --cov-report=term:skip-covered

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/mypy

audit: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet pip-audit
	$(BIN)/python tests/audit.py

.venv-transformers/.installed: tests/requirements-transformers.txt
	$(PYTHON) -m venv .venv-transformers
	.venv-transformers/bin/python -m pip install --quiet --upgrade pip
	.venv-transformers/bin/python -m pip install --quiet -r tests/requirements-transformers.txt
	touch $@

# transformers' BLIP-2 and LAVIS need different versions of transformers.
test-transformers: .venv-transformers/.installed
	.venv-transformers/bin/python -m pytest tests/test_captioner.py tests/test_captioning.py tests/test_caption_script.py

.venv-bench/.installed: benchmarks/requirements.txt tests/requirements-transformers.txt
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet --upgrade pip
	.venv-bench/bin/python -m pip install --quiet -r benchmarks/requirements.txt
	touch $@

bench: .venv-bench/.installed
	.venv-bench/bin/python -m benchmarks.run

clean:
	rm -rf $(VENV) .venv-transformers .venv-bench runs features
