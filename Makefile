# `make check` is what the project's checks run; everything else is for working on it.
PYTHON ?= python

.PHONY: setup install test lint format check generated demo bench native native-test native-arm cuda-test cuda-check

setup:            ## install the package with everything needed to work on it
	$(PYTHON) -m pip install -c constraints.txt '.[test,lint,demo,native]'

install:          ## put the checkout's package into the environment again, quickly
	$(PYTHON) -m pip install -q --no-deps .

test: install     ## run the tests against the installed package; k=WORD selects
	pytest $(if $(k),-k '$(k)')

native:           ## compile the checkout's library into the cache, where working in place finds it
	$(PYTHON) -m rwkv_cli doctor --build

# A folder for each kind: make native-test sanitize=address,undefined, or =thread, or without.
comma := ,
native-build = build/native$(if $(sanitize),-$(subst $(comma),-,$(sanitize)))

native-test:      ## the C++ tests; sanitize=address,undefined or sanitize=thread
	cmake -S native -B $(native-build) -G Ninja -DRWKV_TESTS=ON -DRWKV_SANITIZE=$(sanitize)
	cmake --build $(native-build)
	ctest --test-dir $(native-build) --output-on-failure

native-arm:       ## whether the ARM kernels compile (needs: pip install ziglang)
	CXX='$(PYTHON) -m ziglang c++ -target aarch64-linux-gnu' cmake -S native -B build/native-arm \
	  -G Ninja -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 -DRWKV_TESTS=ON
	cmake --build build/native-arm

# Whatever launches kernels; of the engine's tests those with odd sizes, and one that draws.
cuda-kernels = $(addprefix tests/native/test_cuda_,dot.py ends.py heads.py numbers.py rows.py rows_heads.py \
  sample.py sample_penalties.py scans.py shim.py unpack.py value.py)

cuda-test:        ## the CUDA kernels on the CPU, under the address and undefined behaviour sanitizers
	$(PYTHON) native/test/cuda/sanitized.py -q $(cuda-kernels)
	$(PYTHON) native/test/cuda/sanitized.py -q tests/engine/test_cuda.py tests/engine/test_cuda_draws.py \
	  tests/engine/test_cuda_batches.py -k 'v4-narrow or v6-wide or v7-narrow or stop_string or beside_it or for_many'

cuda-check:       ## what the CUDA kernels use of each architecture, against a table (needs nvcc)
	$(PYTHON) native/test/cuda/budget.py

lint:             ## style, types, layers
	ruff check .
	ruff format --check .
	mypy
	lint-imports

format:           ## put the code into shape
	ruff check --fix .
	ruff format .

generated:        ## write the help pages, the completions and docs/commands.md again
	$(PYTHON) docs/generate.py

demo:             ## train the built-in model again (about an hour on two cores)
	$(PYTHON) -m demo.train

bench:            ## measure start-up and sampling
	$(PYTHON) benchmarks/startup.py

check: lint test
