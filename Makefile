# The two commands of the README, and what developers use. Everything happens in .venv; nothing else on the machine
# changes. Needs Python >= 3.10, a C++20 compiler and make; nvcc is used if it is there.
#
#   make demo [AUDIO=my.wav]   set up, let nano speak and listen, round-trip speech, print the quality
#   make test                  set up, run every test
#   make lint                  clang-format, ruff, mypy
#   make mutants [MUTANTS="--areas prompts --sample 20 --seed 1"]   plant faults one at a time: do the tests notice?
#   make bench                 measure the ops against plain torch, write bench/results/
PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
NATIVE_SOURCES := $(shell find csrc cmake CMakeLists.txt pyproject.toml -type f)
# Ops link against torch's stable ABI: our package is built against the torch of the environment, never against one of
# pip's choice, and alone. What it needs comes after, each built in an environment of its own where it has to be built.
INSTALL := $(BIN)/pip install --quiet --no-build-isolation --no-deps --editable .
# The demo's build knows the GPU at hand or none; the tests' has all that is shipped, and the emulator.
GPU := $(shell nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1 | tr -d .)
DEMO_CUDA := $(if $(GPU),--config-settings=cmake.define.MIMO_CUDA_ARCHS=$(GPU)-real,--config-settings=cmake.define.MIMO_CUDA=OFF)

.PHONY: demo test lint format mutants bench clean

demo: $(if $(wildcard $(VENV)/.installed),$(VENV)/.installed,$(VENV)/.demo)
	$(BIN)/mimo-audio demo --force $(AUDIO)

test: $(VENV)/.installed
	$(BIN)/pytest

$(VENV)/.demo: $(VENV)/.tools $(NATIVE_SOURCES)
	$(INSTALL) $(DEMO_CUDA) --config-settings=build-dir=build/demo
	$(BIN)/pip install --quiet 'mimo-audio-native[eval]'
	@touch $@

$(VENV)/.installed: $(VENV)/.tools $(NATIVE_SOURCES)
	$(INSTALL) --config-settings=cmake.define.MIMO_EMULATOR=ON --config-settings=build-dir=build/editable
	$(BIN)/pip install --quiet 'mimo-audio-native[eval,train,serve,test]'
	@touch $@

$(VENV)/.tools:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade 'pip>=24'
	$(BIN)/pip install --quiet '$(TORCH)' 'numpy>=1.24'
	$(BIN)/pip install --quiet 'scikit-build-core>=0.11' 'pybind11>=2.13' 'nanobind>=2.4' 'cmake>=3.25' 'ninja>=1.11'
	@touch $@

$(VENV)/.lint: $(VENV)/.installed
	$(BIN)/pip install --quiet 'clang-format>=18,<24' 'ruff>=0.8,<1' 'mypy>=1.11,<3'
	@touch $@

CXX_FILES := $(shell find csrc -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh')

lint: $(VENV)/.lint
	$(BIN)/clang-format --dry-run --Werror $(CXX_FILES)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python scripts/update_readme.py --check
	$(BIN)/python scripts/update_docs.py --check

format: $(VENV)/.lint
	$(BIN)/clang-format -i $(CXX_FILES)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

mutants: $(VENV)/.installed
	$(BIN)/python scripts/mutants.py --resume --json bench/results/mutants.json $(MUTANTS)

bench: $(VENV)/.installed
	$(BIN)/python bench/run.py --json bench/results/cpu.json
	$(BIN)/python bench/run.py --json bench/results/cpu-bfloat16.json --dtype bfloat16 \
	  backbone_step delayed_sampling lm_ patch_ sample

clean:
	rm -rf build $(VENV)
