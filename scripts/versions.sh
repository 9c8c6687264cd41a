#!/usr/bin/env bash
# A wheel for each Python, installed beside one torch and nothing else, then one op; writes bench/results/versions.json.
#
#   scripts/versions.sh 3.10 3.11:2.11.0 3.11 3.11:2.14.1 3.12 3.13       PYTHON[:TORCH], torch 2.13.0 by default
#
# Interpreters are those of the path, of pyenv or of uv. A build takes minutes, a torch with CUDA gigabytes (build/versions).
set -euo pipefail
cd "$(dirname "$0")/.."

interpreter() { # of a version as 3.12
  local pyenv=("$HOME"/.pyenv/versions/"$1".*/bin/python)
  if [ -x "${pyenv[0]}" ]; then echo "${pyenv[0]}"
  elif command -v "python$1"; then :
  else uv python find "$1"; fi
}

[ $# -gt 0 ] || { sed -n '2,6s/^# \{0,1\}//p' "$0"; exit 2; }
interpreters=()
for asked; do
  python=${asked%%:*} torch=2.13.0
  case $asked in *:*) torch=${asked#*:} ;; esac
  home=build/versions/$python-$torch wheels=build/versions/wheels-$python
  [ -x "$home/bin/python" ] || "$(interpreter "$python")" -m venv "$home"
  "$home/bin/pip" install --quiet "torch==$torch" 'numpy>=1.24'
  if ! ls "$wheels"/*.whl > /dev/null 2>&1; then
    "$home/bin/pip" install --quiet 'scikit-build-core>=0.11' 'pybind11>=2.13' 'nanobind>=2.4' 'cmake>=3.25' 'ninja>=1.11'
    "$home/bin/pip" wheel --quiet --no-build-isolation --no-deps --wheel-dir "$wheels" \
      --config-settings=cmake.define.MIMO_CUDA=OFF --config-settings=build-dir="build/versions/build-$python" .
  fi
  "$home/bin/pip" install --quiet --no-deps --force-reinstall "$wheels"/*.whl
  interpreters+=("$PWD/$home/bin/python")
done
"${PYTHON:-.venv/bin/python}" scripts/versions.py --installed --json bench/results/versions.json "${interpreters[@]}"
