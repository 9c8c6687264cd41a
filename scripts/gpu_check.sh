#!/usr/bin/env bash
# One command for a bare GPU machine without network: build, tests, compute-sanitizer, benchmarks, and one table.
#
#   scripts/gpu_check.sh [--out DIR] [PART...]      records go to DIR (default bench/results)
#
# Parts (default: all, in this order) and their limits in seconds, together under 10 minutes on 16 cores:
#   build       150   CMake and nvcc for this GPU, into mimo_audio_native/
#   resources    30   registers, stack and shared memory of every kernel
#   ops         200   the op tests that need a GPU                                   } these run
#   models      200   the tokenizer's and the language model's                       } side by side
#   memcheck racecheck initcheck synccheck   200   compute-sanitizer, every op       }
#   float32     110   benchmarks of all cases
#   bfloat16     90   benchmarks of the cases that have a dtype
# Needs Python with torch (CUDA), pytest, pybind11, nanobind, and nvcc, cmake, ninja. Tests whose other packages are not
# there are named as not run. Logs lie in build/gpu/logs. Exit status 1 if anything failed.
set -uo pipefail
cd "$(dirname "$0")/.."
root=$PWD out=bench/results python=${PYTHON:-python3}
all="build resources ops models memcheck racecheck initcheck synccheck float32 bfloat16"
parts=
while [ $# -gt 0 ]; do
  case $1 in
    --out) out=$2 && shift ;;
    *) [[ " $all " == *" $1 "* ]] || { echo "gpu_check: no part $1; there are: $all" >&2; exit 2; }
       parts+=" $1" ;;
  esac
  shift
done
parts=" ${parts:-$all} "

name=$(nvidia-smi --query-gpu=name --format=csv,noheader | head -n 1) || { echo "gpu_check: no GPU (nvidia-smi)" >&2; exit 1; }
cap=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -n 1 | tr -d .)
arch=$cap
[ "$cap" = 90 ] && arch=90a
tag=$(echo "$name" | tr 'A-Z ' 'a-z-' | tr -cd 'a-z0-9-')
echo "== $name, sm_$arch, driver $(nvidia-smi --query-gpu=driver_version --format=csv,noheader | head -n 1)"

logs=$root/build/gpu/logs
rm -rf "$logs"
mkdir -p "$logs" "$out"
export PYTHONPATH=$root:$root/python PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 PYTHONUNBUFFERED=1
export TORCH_ALLOW_TF32_CUBLAS_OVERRIDE=0 # float32 is float32

# step NAME LIMIT COMMAND...: its output goes to logs/NAME, its outcome to logs/NAME.step. A part that was not asked for
# is no step.
step() {
  local name=$1 limit=$2 start=$SECONDS status outcome=ok note=
  shift 2
  [[ $parts == *" $name "* ]] || return 0
  timeout -k 10 "$limit" "$@" >"$logs/$name" 2>&1
  status=$?
  [ $status = 0 ] || outcome=FAILED
  [ $status = 124 ] && echo "gpu_check: stopped after $limit s" >>"$logs/$name"
  note=$(grep -v '^ *$' "$logs/$name" | tail -n 1 | tr '\t' ' ' | cut -c 1-110)
  printf '%s\t%s\t%s\t%s\n' "$name" "$outcome" $((SECONDS - start)) "$note" >"$logs/$name.step"
  echo "== $name: $outcome ($((SECONDS - start)) s)"
  [ $status = 0 ] || { tail -n 40 "$logs/$name" | sed "s/^/$name| /"; return 1; }
}
not_run() { printf '%s\tnot run\t0\t%s\n' "$1" "$2" >"$logs/$1.step" && echo "== $1: not run, $2"; }
wants() { [[ $parts == *" $1 "* ]]; }
lacking() { # the first of these modules that is not installed
  local module
  for module; do "$python" -c "import $module" 2>/dev/null || { echo "$module"; return; }; done
}

build() {
  cmake -S . -B build/gpu -G Ninja -DMIMO_CUDA=ON -DMIMO_CUDA_ARCHS="$arch-real" -DMIMO_DEV_OUTPUT="$root/mimo_audio_native" \
    -DPython_EXECUTABLE="$(command -v "$python")" -DSKBUILD_PROJECT_VERSION=0.0.0 -DCMAKE_CUDA_FLAGS=-lineinfo &&
    cmake --build build/gpu
}
export -f build
export arch root python
step build 150 bash -c build || exit 1
step resources 30 "$python" scripts/cuda_proof.py "sm_$arch"

# test_dsp.py needs no GPU, but NumPy.
step ops 200 "$python" -m pytest -q -m cuda tests/ops --ignore tests/ops/test_dsp.py -p no:cacheprovider &
if wants models; then
  files=()
  while read -r file modules; do
    # shellcheck disable=SC2086
    if module=$(lacking $modules) && [ -n "$module" ]; then
      not_run "$(basename "$file" .py)" "$file: $module is not installed"
    else
      files+=("$file")
    fi
  done <<'FILES'
tests/lm/test_golden_cuda.py safetensors numpy tokenizers
tests/tokenizer/test_golden_cuda.py safetensors numpy
tests/tokenizer/test_stream_cuda.py safetensors numpy soundfile soxr
FILES
  [ ${#files[@]} -gt 0 ] && step models 200 "$python" -m pytest -q -m cuda "${files[@]}" -p no:cacheprovider &
fi
for tool in memcheck racecheck initcheck synccheck; do
  if command -v compute-sanitizer >/dev/null; then
    # Without torch's cache every tensor is an allocation of its own, and what overruns it is seen.
    PYTORCH_NO_CUDA_MEMORY_CACHING=1 step $tool 200 compute-sanitizer --tool $tool --error-exitcode 1 \
      --target-processes application-only "$python" scripts/every_op.py &
  elif wants $tool; then
    not_run $tool "no compute-sanitizer on this machine"
  fi
done
wait

records=()
bench() { # DTYPE LIMIT CASE...
  local record=$out/$tag-$1.json
  wants "$1" || return 0
  rm -f "$record"
  step "$1" "$2" "$python" bench/run.py --device cuda --dtype "$1" --seconds 0.25 --json "$record" "${@:3}"
  [ -f "$record" ] && records+=("$record")
}
bench float32 110
bench bfloat16 90 backbone_step delayed_sampling lm_ patch_ sample tokenizer window_attention

for part in $all; do cat "$logs/$part.step" 2>/dev/null; done >"$logs/steps"
cat "$logs"/test_*.step >>"$logs/steps" 2>/dev/null
echo
"$python" scripts/gpu_table.py "$logs/steps" "${records[@]}"
status=$?
[ $status = 0 ] && echo "== all passed; records in $out, logs in build/gpu/logs" || echo "== something FAILED (see above)"
exit $status
