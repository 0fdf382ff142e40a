"""The page's part on what moved between two runs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import compare
from table import aligned, digits

# Where these differ, ratios move without a change of gdcore's.
MACHINE = ("cpu", "usable_cores", "torch_threads", "gdcore_threads", "gdcore_instruction_set")


def unjudged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, list[compare.Key]]:
    """The cases that cannot be compared, by the reason."""
    before, after = compare.by_key(old), compare.by_key(new)
    found: dict[str, list[compare.Key]] = {}
    for key in {**before, **after}:
        reason = compare.why_unjudged(before.get(key), after.get(key))
        if reason is not None:
            found.setdefault(reason, []).append(key)
    return found


def unjudged_text(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What the comparison says nothing of; a suite that is left out as a whole has no names."""
    lines = ["Not judged:", "", "- times by themselves; accuracy, memory and the busy neighbour"]
    sizes = Counter(suite for suite, _ in {**compare.by_key(old), **compare.by_key(new)})
    for reason, keys in unjudged(old, new).items():
        names: list[str] = []
        for suite, count in Counter(suite for suite, _ in keys).items():
            if count == sizes[suite]:
                names.append(f"all {count} of {suite}")
            else:
                names += [f"{suite}, {name}" for of, name in keys if of == suite]
        lines.append(f"- {reason}: {'; '.join(names)}")
    return [*lines, ""]


def machine_text(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """A warning for all that differs between the two machines."""
    was, now = old.get("machine", {}), new.get("machine", {})
    return [
        f"**Another machine:** {key} was {was.get(key)}, now {now.get(key)}; ratios may have moved "
        "with it.\n"
        for key in MACHINE
        if was.get(key) != now.get(key)
    ]


def text(
    old: Mapping[str, Any], new: Mapping[str, Any], again: Mapping[str, Any] | None = None
) -> list[str]:
    """What moved, the worst first; then what is not judged."""
    found = compare.judged(old, new)
    cases = [one for one in found if one.name and not one.row]
    moved = sorted((one for one in found if one.moved), key=lambda one: one.factor)
    regressed = compare.regressions(old, new, again)
    lines = ["## Compared", "", *machine_text(old, new)]
    if moved:
        rows = [["case", "old ratio", "new ratio", "moved by", "noise", ""]]
        for one in moved:
            noise = f"{percent(-one.noise)} to {percent(one.noise)}"
            verdict = "**regression**" if one.key in regressed else ""
            if one.regressed and not verdict:
                verdict = "not when measured again"
            by = percent(math.log(one.factor))
            rows.append([one.where, digits(one.old), digits(one.new), by, noise, verdict])
        lines += [*aligned(rows), ""]
    most = f"{100 * compare.TOLERANCE:.0f} %"
    lines += [
        f"{len(cases)} cases judged, with their means and further rows of gdcore's: {len(moved)} "
        f"moved beyond noise, {len(regressed)} of them lost more than {most}.",
        "",
    ]
    seen = [
        f"{100 * part:.0f} % in {sum(one.visible <= part for one in cases)} cases"
        for part in (compare.TOLERANCE, 0.2, 0.5)
    ]
    seen += [f"{100 * one.visible:.0f} % of {one.suite}" for one in found if not one.name]
    lines += [f"By the noise of both runs a loss would have been seen of {', '.join(seen)}.", ""]
    return lines + unjudged_text(old, new)


def percent(logarithm: float) -> str:
    return f"{100 * math.expm1(logarithm):+.0f} %"
