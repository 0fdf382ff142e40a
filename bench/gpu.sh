#!/usr/bin/env bash
# The CUDA path on a machine with a device and no network: build, tests, compute-sanitizer, bench.
#
# Needs Python 3.10 or later, its headers and pip, torch 2.11 or later, pybind11, scikit-build-core, cmake and ninja, a C++
# compiler and nvcc; for the tests pytest and NumPy, without which everything else is done, and their absence told.
# Leaves bench/results/<device>.json and .md (or in the folder given as the first argument), written as cases are
# measured, and in logs/ beside them all that every stage has said so far. All of it ends within GDCORE_GPU_SECONDS
# (580): every stage has a limit of its own and takes no more than what is left; the later ones run even where an earlier
# one has failed.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
results=${1:-bench/results}
logs=$results/logs
mkdir -p "$logs" || exit 1
deadline=${GDCORE_GPU_SECONDS:-580}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
failed=()
unchecked=()

# Buffered, what a stage had to say would be lost with it; SIGINT, which a script in the background ignores, has pytest
# tell its failures where its time is up.
export PYTHONUNBUFFERED=1
limited() { # seconds, kept for later stages, command: what is left of all the time, and 124 where that is nothing
  local limit=$1 left=$((deadline - SECONDS - $2))
  shift 2
  [ "$left" -gt 0 ] || return 124
  env --default-signal=INT timeout --signal=INT --kill-after=5 "$((left < limit ? left : limit))" "$@"
}
log_of() { echo "$logs/${1// /-}.log"; }
stage() { # name, lines shown, seconds, kept for later stages, command
  local name=$1 lines=$2 status=0 log
  log=$(log_of "$name")
  printf '\n== %s (after %d s)\n' "$name" "$SECONDS"
  limited "${@:3}" > "$log" 2>&1 || status=$?
  [ "$status" -eq 0 ] || [ "$lines" -ge 40 ] || lines=40
  tail -n "$lines" "$log"
  [ "$status" -eq 0 ] && return
  failed+=("$name")
  case $status in
    124) status="out of time" ;;
    137) status="out of time and killed, or out of memory" ;;
    *) status="status $status" ;;
  esac
  echo "-- failed: $name ($status): $log"
  return 1
}

missing=()
for module in pip torch pybind11 scikit_build_core; do python3 -c "import $module" 2> /dev/null || missing+=("$module"); done
for command in c++ cmake ninja "${CUDACXX:-nvcc}"; do command -v "$command" > /dev/null || missing+=("$command"); done
[ ${#missing[@]} -eq 0 ] || echo "-- missing, and needed to build: ${missing[*]}"

# Only what these devices run is compiled: of one kind, a third of the time.
architectures=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2> /dev/null | grep '^[0-9. ]*$' | tr -d '. ' |
  sort -un | sed 's/$/-real/' | paste -sd ';')
build() { # from nothing, as the compiler reports only what it compiles
  python3 -m pip install . --no-build-isolation --no-deps --no-index --target "$scratch/site" -v \
    -C build-dir="$scratch/build" -C cmake.define.GDCORE_CUDA=ON \
    ${architectures:+-C cmake.define.CMAKE_CUDA_ARCHITECTURES="$architectures"}
}
export -f build
export scratch architectures
stage "build" 1 240 0 bash -c build || exit 1
# Not from the checkout, whose python/gdcore has no modules beside it.
export PYTHONPATH="$scratch/site${PYTHONPATH:+:$PYTHONPATH}" PYTHONDONTWRITEBYTECODE=1
stage "kernels" 300 20 0 python3 .ci/kernels.py "$(log_of build)" --table
stage "info" 40 60 0 python3 -m gdcore info

absent=()
for module in pytest numpy; do python3 -c "import $module" 2> /dev/null || absent+=("$module"); done
sanitizer=
if [ ${#absent[@]} -eq 0 ]; then
  # Compiled here, and not under compute-sanitizer, which would watch the compiler.
  export GDCORE_EMULATOR="$scratch/emulator.so"
  stage "emulator" 1 60 150 python3 -c 'from pathlib import Path; import os
from tests.cuda import emulator; emulator.build(Path(os.environ["GDCORE_EMULATOR"]).parent)'
  # Every test by its name, so that the last one of a log is the one that did not end.
  run=(python3 -m pytest -v --tb=short -rfE -p no:cacheprovider -m cuda)
  stage "tests" 1 160 150 "${run[@]}" tests/cuda
  # Small ones, that leave a device mostly idle: some processes side by side, the longest files first.
  mapfile -t shared < <(grep -lE 'usefixtures\("device|indirect=True' tests/{api,kernels,native}/test_*.py | xargs ls -S)
  processes=$(($(nproc) < 16 ? ($(nproc) + 1) / 2 : 8))
  each=$(log_of "tests that the CPU has too")
  each=${each%.log}
  rm -rf "$each" && mkdir "$each"
  # A limit of its own for each, as a process that does not listen outlives the one that started it.
  some() {
    local log status=0
    log=$(mktemp "$each/XXXXXX.log")
    env --default-signal=INT timeout --signal=INT --kill-after=5 "$each_seconds" \
      python3 -m pytest -v --tb=short -rfE -p no:cacheprovider -m cuda "$@" > "$log" 2>&1 || status=$?
    tail -n 1 "$log"
    return "$status"
  }
  each_seconds=$((deadline - SECONDS - 160 < 190 ? deadline - SECONDS - 160 : 190))
  export -f some
  export each each_seconds
  stage "tests that the CPU has too" 1 200 150 \
    bash -c 'trap "" INT; printf "%s\n" "${@:2}" | xargs -n 2 -P "$1" bash -c '\''some "$@"'\'' some' some "$processes" "${shared[@]}" ||
    { echo "-- each process in $each"; grep -hE "^(FAILED|ERROR) " "$each"/*.log | head -n 60; }
  sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda*/bin/compute-sanitizer 2> /dev/null | tail -n 1)
  [ -n "$sanitizer" ] || { unchecked+=(memcheck racecheck) && echo "-- compute-sanitizer: not on this machine"; }
else
  failed+=("tests")
  echo "-- failed: tests (missing: ${absent[*]}; nothing was tested)"
fi

if [ -n "$sanitizer" ]; then
  # A launch of every kind of kernel. None is captured into a graph, where memory cannot come from CUDA itself, as it
  # must for memcheck to know its ends; and torch asks for things that it expects to be refused.
  few="test_bits_of_the_emulator or test_updates_are_the_cpu_s or test_legendre or test_layouts or test_gradients_are_scaled
    or (test_half_types and not wide) or test_divergence or (test_around_the_loop and (clipped or gradients or weights))"
  for tool in memcheck racecheck; do
    log=$(log_of "$tool")
    printf '\n== compute-sanitizer %s (after %d s)\n' "$tool" "$SECONDS"
    of_tool=()
    [ "$tool" = racecheck ] || of_tool=(--report-api-errors no)
    PYTORCH_NO_CUDA_MEMORY_CACHING=1 limited 70 120 "$sanitizer" --tool "$tool" ${of_tool[@]+"${of_tool[@]}"} \
      --error-exitcode 9 "${run[@]}" tests/cuda/test_device_{fit,losses,optimizers,training,use}.py -k "${few//$'\n'/ }" > "$log" 2>&1
    status=$?
    tail -n 20 "$log"
    if grep -q "ERROR SUMMARY: [1-9]\|RACECHECK SUMMARY: [1-9]" "$log"; then
      failed+=("$tool")
      echo "-- failed: $tool (errors)"
    elif grep -qE "^(=+ )?([0-9]+ [a-z]+, )*[0-9]+ (failed|error)" "$log"; then
      failed+=("$tool")
      echo "-- failed: $tool (a test fails under it)"
    elif [ "$status" -eq 124 ] || [ "$status" -eq 137 ]; then
      unchecked+=("$tool")
      echo "-- $tool: out of time: $log"
    elif [ "$status" -ne 0 ]; then
      # Some machines refuse it, which is no failure of the kernels.
      unchecked+=("$tool")
      echo "-- $tool: not run here to its end (status $status): $log"
    fi
  done
fi

stage "bench" 60 240 0 python3 bench/gpu.py --results "$results"
[ ${#unchecked[@]} -eq 0 ] || printf '\n-- not checked: %s\n' "${unchecked[*]}"
printf '\n== %s after %d s\n' "$([ ${#failed[@]} -eq 0 ] && echo passed || echo "failed: ${failed[*]}")" "$SECONDS"
[ ${#failed[@]} -eq 0 ]
