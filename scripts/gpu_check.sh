#!/usr/bin/env bash
# One command for a bare GPU machine without network: build, tests, compute-sanitizer, benchmarks, and one table.
#
#   MIMO_REVISION=$(git rev-parse --short HEAD) scripts/gpu_check.sh [--out DIR] [PART...]
#
# Records, logs (logs.tgz) and the table go to DIR (default bench/results), also when the script is killed.
# Parts (default: all, in this order: the most wanted first) and their limits in seconds on 16 cores:
#   build       150   CMake and nvcc for this GPU, into mimo_audio_native/; not built again if it is there (--keep)
#   resources    30   registers, stack and shared memory of every kernel
#   smoke        60   every op at small sizes against the CPU kernels, a process per op
#   profile      60   every kernel's time in one call of the cases that have a target
#   targets     120   benchmarks of these cases and of the released model, both dtypes
#   ops         150   the op tests that need a GPU, a process per file, five at a time    } these run
#   models      150   the tokenizer's and the language model's                            } side by side
#   memcheck    150   compute-sanitizer, every op                                         }
#   racecheck   150                                                                       }
#   float32     120   benchmarks of the other cases
#   bfloat16    100   benchmarks of the other cases that have a dtype
#   initcheck synccheck   150   compute-sanitizer again
# Needs Python with torch (CUDA), pytest, pybind11, nanobind, and nvcc, cmake, ninja. Tests whose other packages are not
# there are named as not run. Exit status 1 if anything failed.
set -uo pipefail
cd "$(dirname "$0")/.."
root=$PWD out=bench/results python=${PYTHON:-python3} keep=
all="build resources smoke profile targets ops models memcheck racecheck float32 bfloat16 initcheck synccheck"
parts=
while [ $# -gt 0 ]; do
  case $1 in
    --out) out=$2 && shift ;;
    --keep) keep=1 ;;
    *) [[ " $all " == *" $1 "* ]] || { echo "gpu_check: no part $1; there are: $all" >&2; exit 2; }
       parts+=" $1" ;;
  esac
  shift
done
parts=" ${parts:-$all} "
# The tools lie beside Python or in the toolkit.
here=$(command -v "$python") && export PATH=$(dirname "$here"):$(dirname "$(readlink -f "$here")"):$PATH:/usr/local/cuda/bin

name=$(nvidia-smi --query-gpu=name --format=csv,noheader | head -n 1) || { echo "gpu_check: no GPU (nvidia-smi)" >&2; exit 1; }
arch=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -n 1 | tr -d .)
tag=$(echo "$name" | tr 'A-Z ' 'a-z-' | tr -cd 'a-z0-9-')
export MIMO_REVISION=${MIMO_REVISION:-$(git describe --always --dirty 2>/dev/null || echo unknown)}
echo "== $name, sm_$arch, driver $(nvidia-smi --query-gpu=driver_version --format=csv,noheader | head -n 1), $MIMO_REVISION"

logs=$root/build/gpu/logs
rm -rf "$logs"
mkdir -p "$logs" "$out"
export PYTHONPATH=$root:$root/python${PYTHONPATH:+:$PYTHONPATH} PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 PYTHONUNBUFFERED=1
export TORCH_ALLOW_TF32_CUBLAS_OVERRIDE=0 # float32 is float32

# step NAME LIMIT COMMAND...: its output goes to logs/NAME, its outcome to logs/NAME.step.
step() {
  local name=$1 limit=$2 start=$SECONDS status outcome=ok note=
  shift 2
  timeout -k 10 "$limit" "$@" >"$logs/$name" 2>&1
  status=$?
  [ $status = 0 ] || outcome=FAILED
  [ $status = 124 ] && echo "gpu_check: stopped after $limit s" >>"$logs/$name"
  note=$(grep -v '^ *$' "$logs/$name" | tail -n 1 | tr '\t' ' ' | cut -c 1-110)
  printf '%s\t%s\t%s\t%s\n' "$name" "$outcome" $((SECONDS - start)) "$note" >"$logs/$name.step"
  echo "== $name: $outcome ($((SECONDS - start)) s)"
  [ $status = 0 ] || { tail -n 25 "$logs/$name" | cut -c 1-300 | sed "s/^/$name| /"; return 1; }
}
not_run() { printf '%s\tnot run\t0\t%s\n' "$1" "$2" >"$logs/$1.step" && echo "== $1: not run, $2"; }
wants() { [[ $parts == *" $1 "* ]]; }
lacking() { # the first of these modules that is not installed
  local module
  for module; do "$python" -c "import $module" 2>/dev/null || { echo "$module"; return; }; done
}
status=1
finish() { # table, logs and the built module come back however it ends
  trap - EXIT
  local part records=("$out/$tag"-*.json)
  for part in $all; do cat "$logs/$part.step" "$logs/$part"-*.step 2>/dev/null; done >"$logs/steps"
  cat "$logs"/test_*.step >>"$logs/steps" 2>/dev/null
  [ -f "${records[0]}" ] || records=()
  echo
  "$python" scripts/gpu_table.py "$logs/steps" "${records[@]}" | tee "$logs/table"
  status=${PIPESTATUS[0]}
  tar czf "$out/logs.tgz" -C "$root/build/gpu" logs
  cp "$root"/mimo_audio_native/_C*.so "$out" 2>/dev/null
  [ "$status" = 0 ] && echo "== all passed; records and logs in $out" || echo "== something FAILED (see above)"
  exit "$status"
}
trap finish EXIT
trap 'exit 143' TERM INT

build() {
  cmake -S . -B build/gpu -G Ninja -DMIMO_CUDA=ON -DMIMO_CUDA_ARCHS="$arch-real" -DMIMO_DEV_OUTPUT="$root/mimo_audio_native" \
    -DPython_EXECUTABLE="$(command -v "$python")" -DSKBUILD_PROJECT_VERSION=0.0.0 -DCMAKE_CUDA_FLAGS=-lineinfo &&
    cmake --build build/gpu
}
export -f build
export arch root python logs
if wants build && ! { [ "$keep" ] && "$python" -c "import mimo_audio_native" 2>/dev/null; }; then
  step build 150 bash -c build || exit 1
fi
wants resources && step resources 30 "$python" scripts/cuda_proof.py "sm_$arch"

# A crash in one op leaves the other processes theirs.
smoke() {
  "$python" - <<'PYTHON' | xargs -P 8 -I{} sh -c 'timeout 50 "$python" scripts/every_op.py --compare {} >"$logs/smoke-{}" 2>&1 || echo "{}: $(tail -n 3 "$logs/smoke-{}" | tr "\n" " ")"' | tee "$logs/smoke-failed"
import torch, mimo_audio_native
print("\n".join(sorted({str(s.name).removeprefix("mimo::") for s in torch._C._jit_get_all_schemas() if s.name.startswith("mimo::")} - {"rvq_tables"})))
PYTHON
  cat "$logs"/smoke-* | grep -h '^every_op' | awk '{calls += $2; bad += $7} END {print calls " calls compared with the CPU kernels, " bad + 0 " differ"}'
  [ ! -s "$logs/smoke-failed" ]
}
export -f smoke
wants smoke && step smoke 60 bash -c smoke
wants profile && step profile 60 "$python" bench/kernel_times.py --json "$out/$tag-profile.json"

bench() { # RECORD LIMIT DTYPE ARGUMENT...
  rm -f "$out/$tag-$1.json"
  step "$1" "$2" "$python" bench/run.py --device cuda --dtype "$3" --seconds 0.1 --json "$out/$tag-$1.json" "${@:4}"
}
if wants targets; then
  bench targets-bfloat16 90 bfloat16 --targets lm_patch/released patch_decode backbone_step/released lm_first tokenizer window_ patch_attention rotary
  bench targets-float32 60 float32 --targets rvq log_mel vocoder
fi

# test_dsp.py needs no GPU, but NumPy. Versions differ from machine to machine, and with them torch's warnings.
pytest=("$python" -m pytest -q -m cuda -p no:cacheprovider -o filterwarnings=default)
if wants ops; then
  for file in tests/ops/test_*.py; do
    [[ $file == *test_dsp.py ]] || ! grep -q -e 'backend' -e 'mark\.cuda' "$file" && continue
    while [ "$(jobs -rp | wc -l)" -ge 5 ]; do sleep 0.2; done
    step "$(basename "$file" .py | sed s/^test_/ops-/)" 150 "${pytest[@]}" "$file" &
  done
fi
if wants models; then
  while read -r file modules; do
    # shellcheck disable=SC2086
    if module=$(lacking $modules) && [ -n "$module" ]; then
      not_run "models-$(basename "$file" .py)" "$file: $module is not installed"
    else
      step "models-$(echo "$file" | cut -d / -f 2)-$(basename "$file" .py)" 150 "${pytest[@]}" "$file" &
    fi
  done <<'FILES'
tests/lm/test_golden_cuda.py safetensors numpy tokenizers
tests/tokenizer/test_golden_cuda.py safetensors numpy
tests/tokenizer/test_stream_cuda.py safetensors numpy soundfile soxr
FILES
fi
sanitize() { # TOOL
  wants "$1" || return 0
  command -v compute-sanitizer >/dev/null || { not_run "$1" "no compute-sanitizer on this machine"; return 0; }
  # Without torch's cache every tensor is an allocation of its own, and what overruns it is seen. torch asks the driver
  # things that it may refuse: such errors are none of ours.
  PYTORCH_NO_CUDA_MEMORY_CACHING=1 step "$1" 150 compute-sanitizer --tool "$1" --error-exitcode 1 --report-api-errors no \
    --print-limit 20 --target-processes application-only "$python" scripts/every_op.py
}
sanitize memcheck &
sanitize racecheck &
wait

wants float32 && bench float32 120 float32 vocoder_head window_attention log_mel rvq patch_ backbone delayed sample stft tokenizer lm_
wants bfloat16 && bench bfloat16 100 bfloat16 lm_ patch_decode backbone_step window_attention patch_attention rotary tokenizer delayed sample
sanitize initcheck &
sanitize synccheck &
wait
exit 0
