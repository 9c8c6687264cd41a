#!/usr/bin/env bash
# One command for a bare GPU machine without network: build for its architecture, GPU tests, compute-sanitizer, benchmarks.
#
#   scripts/gpu_check.sh [OUT]     records go to OUT (default bench/results)
#
# Needs Python with torch (CUDA), pytest, pybind11, nanobind, and nvcc, cmake, ninja. Ends with a short table; exit status
# 1 if anything failed. Under 10 minutes.
set -uo pipefail
cd "$(dirname "$0")/.."
root=$PWD
out=${1:-bench/results}
python=${PYTHON:-python3}
mkdir -p "$out"
failed=0
step() {
  local name=$1 start=$SECONDS
  shift
  echo "== $name"
  if "$@"; then echo "== $name: ok ($((SECONDS - start)) s)"; else
    echo "== $name: FAILED ($((SECONDS - start)) s)"
    failed=1
  fi
}

name=$(nvidia-smi --query-gpu=name --format=csv,noheader | head -n 1) || { echo "gpu_check: no GPU (nvidia-smi)" >&2; exit 1; }
cap=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -n 1 | tr -d .)
arch=$cap
[ "$cap" = 90 ] && arch=90a
tag=$(echo "$name" | tr 'A-Z ' 'a-z-' | tr -cd 'a-z0-9-')
echo "== $name, sm_$arch, driver $(nvidia-smi --query-gpu=driver_version --format=csv,noheader | head -n 1)"

build() {
  cmake -S . -B build/gpu -G Ninja -DMIMO_CUDA=ON -DMIMO_CUDA_ARCHS="$arch-real" -DMIMO_DEV_OUTPUT="$root/mimo_audio_native" \
    -DPython_EXECUTABLE="$(command -v "$python")" -DSKBUILD_PROJECT_VERSION=0.0.0 -DCMAKE_CUDA_FLAGS=-lineinfo >"$out/build-$tag.log" &&
    cmake --build build/gpu >>"$out/build-$tag.log" 2>&1 || { tail -n 30 "$out/build-$tag.log"; return 1; }
  grep -E "spill|Used" "$out/build-$tag.log" | grep -v " 0 bytes spill stores, 0 bytes spill loads" | sort | uniq -c | sort -rn | head -n 5 || true
}

export PYTHONPATH=$root:$root/python
step build build
[ $failed = 0 ] || exit 1
# test_dsp.py wants NumPy, which such a machine may lack, and no GPU.
step "tests on the GPU" "$python" -m pytest -q -m cuda tests/ops --ignore tests/ops/test_dsp.py
if command -v compute-sanitizer >/dev/null; then
  for tool in memcheck racecheck initcheck synccheck; do
    step "compute-sanitizer $tool" compute-sanitizer --tool "$tool" --error-exitcode 1 --target-processes application-only \
      "$python" scripts/sanitizer_cases.py
  done
else
  echo "== compute-sanitizer: not on this machine"
fi
for dtype in float32 bfloat16; do
  step "bench $dtype" "$python" bench/run.py --device cuda --dtype $dtype --seconds 0.5 --json "$out/$tag-$dtype.json"
done
rm -f "$out/build-$tag.log"
[ $failed = 0 ] && echo "== all passed; records in $out" || echo "== something FAILED (see above)"
exit $failed
