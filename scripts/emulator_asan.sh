#!/usr/bin/env bash
# Runs the CUDA kernels of every op on the emulator under AddressSanitizer, in index order and in random orders.
#
#   scripts/emulator_asan.sh [OP...]      needs the dev build (csrc/README.md) and libasan of the compiler
#
# Finds reads and writes outside of arrays, of shared and of global memory, with the line of the .cu file.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
cmake --preset asan -DPython_EXECUTABLE="$(command -v "$python")" >/dev/null
cmake --build --preset asan
export PYTHONPATH=$PWD:$PWD/python ASAN_OPTIONS=detect_leaks=0 # Python's own
LD_PRELOAD=$("${CXX:-c++}" -print-file-name=libasan.so) \
  "$python" scripts/every_op.py --device emulator --modules build/asan/modules --shuffle 2 "$@"
