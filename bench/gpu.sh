#!/usr/bin/env bash
# The CUDA path on a machine with a device and no network: build, tests, compute-sanitizer, bench.
#
# Needs Python 3.10 or later with torch 2.11 or later, pybind11, scikit-build-core, cmake and ninja, and nvcc; for the
# tests pytest and NumPy, without which everything else is done, and their absence told.
# Leaves bench/results/<device>.json and .md (or in the folder given as the first argument), written as cases are
# measured. All of it ends within GDCORE_GPU_SECONDS (580): every stage has a limit of its own and takes no more than
# what is left; the later ones run even where an earlier one has failed.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
results=${1:-bench/results}
deadline=${GDCORE_GPU_SECONDS:-580}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
failed=()

limited() { # seconds, kept for later stages, command: what is left of all the time, and 124 where that is nothing
  local limit=$1 left=$((deadline - SECONDS - $2))
  shift 2
  [ "$left" -gt 0 ] || return 124
  timeout --kill-after=5 "$((left < limit ? left : limit))" "$@"
}
stage() { # name, seconds, kept for later stages, command
  local name=$1 status=0
  printf '\n== %s (after %d s)\n' "$name" "$SECONDS"
  limited "${@:2}" || status=$?
  [ "$status" -eq 0 ] && return
  failed+=("$name")
  echo "-- failed: $name ($([ "$status" -eq 124 ] && echo "out of time" || echo "status $status"))"
  return 1
}

missing=()
for module in torch pybind11 scikit_build_core; do python3 -c "import $module" 2> /dev/null || missing+=("$module"); done
for command in cmake ninja "${CUDACXX:-nvcc}"; do command -v "$command" > /dev/null || missing+=("$command"); done
[ ${#missing[@]} -eq 0 ] || echo "-- missing, and needed to build: ${missing[*]}"

# Only what these devices run is compiled: of one kind, a third of the time.
architectures=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2> /dev/null | grep '^[0-9. ]*$' | tr -d '. ' |
  sort -un | sed 's/$/-real/' | paste -sd ';')
build() {
  python3 -m pip install . --no-build-isolation --no-deps --no-index --target "$scratch/site" -v \
    -C cmake.define.GDCORE_CUDA=ON ${architectures:+-C cmake.define.CMAKE_CUDA_ARCHITECTURES="$architectures"} \
    > "$scratch/build.log" 2>&1 || { tail -n 40 "$scratch/build.log"; return 1; }
}
export -f build
export scratch architectures
stage "build" 240 0 bash -c build || exit 1
export PYTHONPATH="$scratch/site" PYTHONDONTWRITEBYTECODE=1
# Not from the checkout, whose python/gdcore has no modules beside it.
stage "kernels" 20 0 python3 .ci/kernels.py "$scratch/build.log" --table
stage "info" 60 0 python3 -m gdcore info

absent=()
for module in pytest numpy; do python3 -c "import $module" 2> /dev/null || absent+=("$module"); done
sanitizer=
if [ ${#absent[@]} -eq 0 ]; then
  # Compiled here, and not under compute-sanitizer, which would watch the compiler.
  export GDCORE_EMULATOR="$scratch/emulator.so"
  stage "emulator" 60 150 python3 -c 'from pathlib import Path; import os
from tests.cuda import emulator; emulator.build(Path(os.environ["GDCORE_EMULATOR"]).parent)'
  run=(python3 -m pytest -q -p no:cacheprovider -m cuda)
  stage "tests" 160 150 "${run[@]}" tests/cuda
  mapfile -t shared < <(grep -lE 'usefixtures\("device' tests/api/*.py)
  stage "tests that the CPU has too" 200 150 "${run[@]}" "${shared[@]}"
  sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda*/bin/compute-sanitizer 2> /dev/null | tail -n 1)
  [ -n "$sanitizer" ] || echo "-- compute-sanitizer: not on this machine"
else
  failed+=("tests")
  echo "-- failed: tests (missing: ${absent[*]}; nothing was tested)"
fi

if [ -n "$sanitizer" ]; then
  # A launch of every kernel, or nearly.
  few="test_bits_of_the_emulator or test_divergence or test_updates_are_the_cpu_s or test_legendre or test_layouts
    or test_half_types or test_gradients_are_scaled or test_captured_steps"
  for tool in memcheck racecheck; do
    printf '\n== compute-sanitizer %s (after %d s)\n' "$tool" "$SECONDS"
    limited 60 120 "$sanitizer" --tool "$tool" --error-exitcode 9 \
      "${run[@]}" tests/cuda -k "${few//$'\n'/ }" > "$scratch/$tool.log" 2>&1
    status=$?
    tail -n 4 "$scratch/$tool.log"
    if grep -q "ERROR SUMMARY: [1-9]\|RACECHECK SUMMARY: [1-9]" "$scratch/$tool.log"; then
      failed+=("$tool")
      echo "-- failed: $tool (errors)"
    elif grep -qE "^(=+ )?([0-9]+ [a-z]+, )*[0-9]+ (failed|error)" "$scratch/$tool.log"; then
      failed+=("$tool")
      echo "-- failed: $tool (a test fails under it)"
    elif [ "$status" -eq 124 ]; then
      echo "-- $tool: out of time"
    elif [ "$status" -ne 0 ]; then
      # Some machines refuse it, which is no failure of the kernels.
      echo "-- $tool: not run here to its end (status $status)"
    fi
  done
fi

stage "bench" 240 0 python3 bench/gpu.py --results "$results"
printf '\n== %s after %d s\n' "$([ ${#failed[@]} -eq 0 ] && echo passed || echo "failed: ${failed[*]}")" "$SECONDS"
[ ${#failed[@]} -eq 0 ]
