# The table of contents of the project. Every target makes its own virtual environment
# when there is none; all that has to be there before is Python >= 3.11 and a C++ compiler.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# How many test processes; `make test WORKERS=0` runs in this one.
WORKERS ?= auto
PYTEST_ARGS ?=
# How many times as long as the tests does `make fuzz` search for bad input.
FUZZ ?= 20

NATIVE := $(shell find cvxlayer/native -name '*.cpp' -o -name '*.hpp' -o -name '*.inc' -o -name CMakeLists.txt)
CPP    := $(filter %.cpp %.hpp %.inc,$(NATIVE))
READY  := $(VENV)/.ready
INSTALL = $(BIN)/pip install --quiet --no-build-isolation --editable

.PHONY: setup format lint types test native docs bench check demo fuzz sanitize oldest clean

setup: $(READY)

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit("cvxlayer needs Python >= 3.11: make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

# JAX is one of them: its headers decide whether the core gets handlers for it.
$(VENV)/.build-tools: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet 'scikit-build-core>=0.10' 'nanobind>=2.4' 'cmeel-eigen>=3.4' 'cmake>=3.26' 'ninja>=1.11' 'jax==0.10.2'
	touch $@

# The editable install also compiles the native core, incrementally: hence the sources.
$(READY): pyproject.toml $(VENV)/.build-tools $(NATIVE)
	$(INSTALL) '.[dev]'
	touch $@

$(VENV)/.bench: $(READY)
	$(INSTALL) '.[bench]'
	touch $@

# The stub is kept in the repository, so that types can be checked before anything is built.
native: $(READY)
	$(BIN)/python -m nanobind.stubgen -q -m cvxlayer._native -o cvxlayer/_native.pyi

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix-only --quiet .
	$(if $(CPP),$(BIN)/clang-format -i $(CPP))

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(if $(CPP),$(BIN)/clang-format --dry-run --Werror $(CPP))

types: $(READY)
	$(BIN)/basedpyright

test: $(READY)
	$(BIN)/python -m pytest -n $(WORKERS) $(PYTEST_ARGS)

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --site-dir build/docs

check: lint types docs

bench: $(VENV)/.bench
	$(BIN)/python -m tests.benchmarks

demo: $(READY)
	$(BIN)/python examples/denoise_digits.py

# A longer search, from another start each time, for input that our engine cannot take.
fuzz: $(READY)
	CVXLAYER_FUZZ=$(FUZZ) $(BIN)/python -m pytest -n 0 -k robustness $(PYTEST_ARGS)

# What runs our C++ most, against a core built with AddressSanitizer and UBSan: cones, solver,
# derivatives, plain calls and calls from compiled JAX, and a tenth of the search for bad input.
# `make sanitize WIDTHS=` compiles the generic kernels alone, WIDTHS=avx512 those beside them.
SANITIZED := build/sanitize
WIDTHS ?= avx2;avx512
SANITIZED_TESTS := tests/cones/test_native_projection.py tests/program \
  tests/solve/test_native.py tests/solve/test_folded_cones.py tests/solve/test_robustness.py \
  tests/solve/test_statuses.py tests/solve/test_range_space.py \
  tests/differentiate/test_active_rows.py \
  tests/differentiate/test_native_primitives.py tests/differentiate/test_native_derivative.py \
  tests/differentiate/test_smoothed.py tests/differentiate/test_central_path.py \
  tests/test_plain_call.py tests/test_warm_start.py tests/test_smoothed_layers.py \
  tests/test_layer_robustness.py tests/jax/test_layer.py tests/jax/test_derivatives.py \
  tests/torch/test_tensor_calls.py
sanitize: $(READY)
	$(BIN)/cmake -S cvxlayer/native -B $(SANITIZED) -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo \
	  -DCVXLAYER_SANITIZE=ON '-DCVXLAYER_INSTRUCTION_SETS=$(WIDTHS)' \
	  -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja \
	  -DPython_EXECUTABLE=$(abspath $(BIN))/python \
	  -Dnanobind_DIR=$$($(BIN)/python -m nanobind --cmake_dir)
	$(BIN)/cmake --build $(SANITIZED)
	CVXLAYER_NATIVE_MODULE=$$(find $(SANITIZED) -name '_native*.so' | head -n 1) CVXLAYER_FUZZ=0.1 \
	  LD_PRELOAD="$$($${CXX:-c++} -print-file-name=libasan.so) $$($${CXX:-c++} -print-file-name=libstdc++.so.6)" \
	  ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
	  $(BIN)/python -m pytest -n $(WORKERS) $(SANITIZED_TESTS) $(PYTEST_ARGS)

# The tests against the oldest releases that pyproject.toml admits (cvxpy 1.7.0 was withdrawn),
# without PyTorch: what needs a framework is skipped.
OLD := .venv-oldest/bin
oldest:
	$(PYTHON) -m venv .venv-oldest
	$(OLD)/pip install --quiet cvxpy==1.7.1 numpy==1.26.4 scipy==1.13.0 clarabel==0.11.0 \
	  jaxtyping==0.2.34 pytest pytest-xdist hypothesis beartype scikit-learn \
	  'scikit-build-core>=0.10' 'nanobind>=2.4' 'cmeel-eigen>=3.4' 'cmake>=3.26' 'ninja>=1.11'
	$(OLD)/pip install --quiet --no-build-isolation -C build-dir=build/oldest --editable '.[cli]'
	$(OLD)/python -m pytest -n $(WORKERS) --ignore tests/benchmarks $(PYTEST_ARGS)

clean:
	rm -rf build output
