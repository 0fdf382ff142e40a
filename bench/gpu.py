"""gdcore against PyTorch on one CUDA device: ``python bench/gpu.py [--quick] [--results FOLDER]``.

Every contender is checked before it is timed. Times are medians of CUDA events, taken in turns
(A B C, B C A, …) on a warm device; bandwidths are shares of a device-to-device copy timed in the
same rounds. Needs nothing of the rest of the bench but its cases, in `gpu_cases.py`.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import gdcore
from gdcore import _ops
from gpu_cases import Case, Run, all_cases


def milliseconds(run: Run) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    run()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end))


def time_in_turns(runs: Sequence[Run], seconds: float, least: int) -> list[list[float]]:
    """Milliseconds of every run, by round."""
    for run in runs:
        run()
    torch.cuda.synchronize()
    samples: list[list[float]] = [[] for _ in runs]
    begun = time.perf_counter()
    done = 0
    while done < least or (time.perf_counter() - begun < seconds and done < 200):
        for turn in range(len(runs)):
            which = (done + turn) % len(runs)
            samples[which].append(milliseconds(runs[which]))
        done += 1
    return samples


def measure(case: Case, seconds: float) -> dict[str, Any]:
    """Median milliseconds of each contender, ratios, and shares of a copy's bandwidth."""
    source = torch.empty(2**28, device="cuda")
    into = torch.empty_like(source)
    runs = [*case.runs.values(), lambda: into.copy_(source)]
    samples = time_in_turns(runs, seconds, 5)
    copied = 2 * source.numel() * source.element_size() / statistics.median(samples[-1])
    rows = []
    for name, own in zip(case.runs, samples, strict=False):
        median = statistics.median(own)
        ratios = [other / mine for other, mine in zip(own, samples[0], strict=True)]
        share = None if case.moved is None else case.moved * case.units / median / copied
        rows.append(
            {
                "contender": name,
                "milliseconds": median / case.units,
                "ratio": statistics.median(ratios),
                "share of a copy": share,
            }
        )
    return {
        "case": case.name,
        "unit": case.unit,
        "rounds": len(samples[0]),
        "copy, bytes per second": copied * 1e3,
        "goal": None if case.goal is None else asdict(case.goal),
        "rows": rows,
    }


def verdict(found: dict[str, Any]) -> str:
    goal = found["goal"]
    if goal is None:
        return ""
    ours, rival = found["rows"][:2]
    reached = rival["ratio"] >= goal["ratio"]
    if goal["share"] is not None:
        reached = reached and ours["share of a copy"] >= goal["share"]
    share = "" if goal["share"] is None else f", {goal['share']:.0%}"
    return f"{'yes' if reached else 'no'} ({goal['ratio']:g} x{share})"


def table(results: Sequence[dict[str, Any]]) -> str:
    lines = ["| what | contender | µs | times gdcore's | share of a copy | goal reached |"]
    lines.append("|---|---|---|---|---|---|")
    for found in results:
        for i, row in enumerate(found["rows"]):
            share = row["share of a copy"]
            cells = [
                f"{found['case']}, per {found['unit']}" if i == 0 else "",
                row["contender"],
                f"{row['milliseconds'] * 1e3:.4g}",
                f"{row['ratio']:.3g}",
                "" if share is None else f"{share:.0%}",
                verdict(found) if i == 0 else "",
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def describe() -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(0)
    return {
        "device": properties.name,
        "multiprocessors": properties.multi_processor_count,
        "memory": properties.total_memory,
        "torch": torch.__version__,
        "build": gdcore.build_info(),
    }


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bench/gpu.py", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a hundredth of the data")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args(given)
    if not torch.cuda.is_available() or _ops.cuda is None:
        print(
            "bench/gpu.py: not measured: no CUDA device, or a build without CUDA", file=sys.stderr
        )
        return 2
    options.results.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"\W+", "-", torch.cuda.get_device_name()).strip("-").lower()
    return bench(all_cases(options.quick), options.results / name, options.quick)


def bench(cases: Sequence[Callable[[], Case]], at: Path, quick: bool) -> int:
    """All cases; both files are written anew after each, so that one cut short leaves the others.

    A case that fails is told, and the others are measured.
    """
    header = {**describe(), "quick": quick, "cases": len(cases)}
    results: list[dict[str, Any]] = []
    failed = 0
    for build in cases:
        try:
            results.append(measure(build(), 1.0 if quick else 5.0))
        except (AssertionError, RuntimeError, ValueError):
            failed += 1
            traceback.print_exc()
            continue
        finally:
            torch.cuda.empty_cache()
        at.with_suffix(".json").write_text(
            json.dumps({**header, "results": results}, indent=1) + "\n"
        )
        at.with_suffix(".md").write_text(table(results) + "\n")
        print(table(results[-1:]), flush=True)
    print(f"\n{table(results)}\n\n{len(results)} of {len(cases)} cases, in {at}.json and .md")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
