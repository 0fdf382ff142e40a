"""What `print` of a curvature shows: each figure with its unit and one plain sentence."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .figures import momentum_figure, rate_figure, rate_figures
from .spectrum import MOST_EXACT

if TYPE_CHECKING:
    from .._curvature import Curvature

__all__ = ["epochs_per_digit", "page", "terms"]

_WIDTH = 80
_BEND = "loss / parameter²"
_STEP = "parameter² / loss"


def page(curvature: Curvature) -> str:
    """At most 80 columns wide."""
    lines = [_title(curvature), ""]
    lines += _shape(curvature)
    lines += _rates(curvature)
    if not curvature.local:
        lines += _optimum(curvature)
    if not curvature.local and curvature.exact:
        lines += _standardised(curvature)
    return "\n".join(lines).rstrip()


def _title(curvature: Curvature) -> str:
    count = curvature.parameters
    parameters = f"{count} parameter" + ("s" if count != 1 else "")
    if curvature.local:
        title = (
            f"Curvature of the loss over {parameters}: local, at the parameters as they are. "
            f"Elsewhere it differs, because the loss is no parabola: {curvature.reason}."
        )
    elif curvature.exact:
        title = f"Curvature of the loss over {parameters}: exact, and the same everywhere."
    else:
        found = (
            "The largest and the smallest have settled."
            if all(_settled(curvature))
            else "The largest has settled; of the others only some were found, and there may be "
            "smaller ones."
            if _settled(curvature)[0]
            else "Neither the largest nor the smallest has settled."
        )
        title = f"Curvature of the loss over {parameters}: estimated. {found}"
    return textwrap.fill(title, _WIDTH)


def _settled(curvature: Curvature) -> tuple[bool, bool]:
    """Whether the largest and the smallest are what is shown, and no estimates."""
    quadratic = curvature._quadratic
    return (True, True) if quadratic is None else quadratic.spectrum.settled


def _heading(text: str) -> list[str]:
    return [text, "-" * len(text)]


def _figure(name: str, value: str, unit: str, sentence: str) -> list[str]:
    head = f"{name:<25}{value:>12}  {unit}".rstrip()
    return [head, *textwrap.wrap(sentence, _WIDTH, initial_indent="    ", subsequent_indent="    ")]


def _number(value: float) -> str:
    return "∞" if math.isinf(value) else f"{value:.4g}"


def _factor(rate: float, ratio: float) -> str:
    """A rate just below 1 by what it lacks."""
    if rate < 0.99995:
        return f"{rate:.4g}"
    return f"1 - {2 / (ratio + 1):.2g}"


def epochs_per_digit(ratio: float) -> float:
    """Epochs to a tenth of a distance, where each leaves (ratio - 1) / (ratio + 1) of it."""
    if ratio <= 1:
        return 1.0
    return math.inf if math.isinf(ratio) else math.log(10) / (2 * math.atanh(1 / ratio))


def _epochs(ratio: float) -> str:
    count = max(math.ceil(epochs_per_digit(ratio)), 1) if not math.isinf(ratio) else math.inf
    if count == 1:
        return "one epoch"
    return f"{count:,} epochs" if count < 1e7 else f"{count:.1e} epochs"


def _shape(curvature: Curvature) -> list[str]:
    lines = _heading("How the loss bends")
    if curvature.rank == 0:
        return [*lines, "In no direction.", ""]
    settled = _settled(curvature)
    lines += _figure(
        "largest curvature",
        _number(curvature.largest_curvature),
        _BEND + ("" if settled[0] else ", or more"),
        "In its steepest direction. A step that suits the others may be too long for this one: "
        "it limits the learning rate.",
    )
    smallest = curvature.smallest_curvature
    flat = (
        "Below zero: in this direction the loss bends down, so this is no minimum."
        if smallest < 0
        else "In the flattest direction that was found. Training is slow there, and slower still "
        "in any that is flatter."
        if not settled[1]
        else "In its flattest direction that still bends. Training is slow there: it decides how "
        "many epochs are needed."
    )
    less = "" if settled[1] else ", or less"
    lines += _figure("smallest curvature", _number(smallest), _BEND + less, flat)
    if smallest > 0:
        bound = "" if all(settled) else ", or more"
        lines += _figure(
            "condition number",
            _number(curvature.condition_number),
            f"(a ratio){bound}",
            "Largest over smallest. At 1 a single step can arrive; the epochs that plain gradient "
            "descent needs grow in proportion to it.",
        )
    if not curvature.local:
        more = "" if curvature.exact else ", or more"
        unit = f"of {curvature.parameters} parameters{more}"
        lines += _figure("rank", str(curvature.rank), unit, _rank(curvature))
    return [*lines, ""]


def _rank(curvature: Curvature) -> str:
    if not curvature.exact:
        return "So many were found; there may be more that bend."
    flat = curvature.parameters - curvature.rank
    if flat == 0:
        return "The data determine all parameters."
    where = "In 1 direction" if flat == 1 else f"In {flat} directions"
    what = "this combination" if flat == 1 else "these combinations"
    return (
        f"{where} the loss does not change at all: the data do not determine {what} of parameters, "
        "and training leaves them as they start."
    )


def _rates(curvature: Curvature) -> list[str]:
    lines = _heading("Which learning rate")
    if curvature.largest_curvature <= 0 and curvature.local:
        text = "The loss bends up in no direction here, so its curvature tells nothing of the rate."
        return [*lines, *textwrap.wrap(text, _WIDTH), ""]
    if curvature.largest_curvature <= 0:
        return [*lines, "Any: the loss is the same for all parameters.", ""]
    limit = curvature.largest_stable_lr()
    known = not curvature.local and all(_settled(curvature))
    stable, *best = rate_figures(*([limit, curvature.best_lr] if known else [limit]))
    lines += _figure(
        "largest stable rate",
        stable,
        _STEP + ("" if _settled(curvature)[0] else ", or less"),
        "2 / largest curvature. Above it steps overshoot by more every time, as long as the "
        "curvature is what it is here."
        if curvature.local
        else "2 / largest curvature. Above it every epoch overshoots by more than the last, and "
        "the loss grows without bound.",
    )
    if not known:
        return [*lines, ""]
    ratio = curvature.condition_number
    lines += _figure(
        "best rate",
        best[0],
        _STEP,
        f"The fastest in the long run: each epoch leaves {_factor(curvature.rate, ratio)} of the "
        f"distance to the optimum, and a tenth of it is left after {_epochs(ratio)}.",
    )
    if ratio == 1:
        return [*lines, "    All directions bend alike: momentum would gain nothing.", ""]
    root = math.sqrt(ratio)
    lines += _figure(
        "best momentum",
        momentum_figure(curvature.best_momentum, 4 * root / (root + 1) ** 2),
        f"at a rate of {rate_figure(curvature.best_momentum_lr)}",
        "Momentum (heavy ball) lets slow directions gather speed: in the long run each epoch "
        f"leaves {_factor(curvature.best_momentum_rate, root)} of the distance, and a tenth is "
        f"left after about {_epochs(root)}.",
    )
    return [*lines, ""]


def _optimum(curvature: Curvature) -> list[str]:
    lines = _heading("Where it ends")
    assert curvature._quadratic is not None
    if not curvature.exact and "optimum" not in vars(curvature):  # a page must not take minutes
        text = (
            f"Not looked for yet: with more than {MOST_EXACT:,} features the optimum is found by "
            "conjugate gradients, over many passes. Ask for `optimum`, and print this again."
        )
        return [*lines, *textwrap.wrap(text, _WIDTH), ""]
    least, optimum = curvature.optimal_loss, curvature.optimum
    lines += _figure(
        "loss at the optimum",
        _number(least),
        "loss",
        "No parameters of this model do better on these data.",
    )
    several = (
        ""
        if curvature.rank == curvature.parameters
        else "Of many equally good ones, one: which is the nearest to the start cannot be told "
        "from rounding."
        if not curvature._quadratic.nearest
        else "Of many equally good ones, the nearest to the start."
        if curvature.exact
        else "If others are as good, the nearest to the start."
    )
    lines += _listed("optimum", terms(optimum, signed=False), several)
    if curvature.rank and _settled(curvature)[1]:
        lines += _listed(
            "slowest direction",
            terms(curvature.slowest_direction, signed=True),
            "Training settles this combination last.",
        )
    return [*lines, ""]


def _listed(name: str, text: str, sentence: str) -> list[str]:
    body = textwrap.wrap(text, _WIDTH - 25, break_long_words=False)
    lines = [f"{name:<25}{body[0]}", *(" " * 25 + line for line in body[1:])]
    if sentence:
        lines += textwrap.wrap(sentence, _WIDTH, initial_indent="    ", subsequent_indent="    ")
    return lines


def terms(values: dict[str, Tensor], *, signed: bool, most: int = 6) -> str:
    """Elements of parameters by name: all of them, or the largest few.

    Args:
        values: by parameter.
        signed: as a sum, ``0.9 weight[0] - 0.4 bias``, rather than a list, ``weight[0] = 0.9``.
        most: how many.
    """
    named = []
    for name, value in values.items():
        for index, number in zip(_indices(value), value.reshape(-1).tolist(), strict=True):
            named.append((name + index, number))
    shown = sorted(named, key=lambda item: -abs(item[1]))[:most] if signed else named[:most]
    if signed:  # what is rounding beside the largest says nothing
        shown = [item for item in shown if abs(item[1]) >= 5e-4 * abs(shown[0][1])]
        parts = [f"{'-' if number < 0 else '+'} {abs(number):.3g} {name}" for name, number in shown]
        text = " ".join(parts).removeprefix("+ ")
        return text + (" + …" if len(named) > most else "")
    text = ", ".join(f"{name} = {_tidy(number)}" for name, number in shown)
    return text + (f", … ({len(named)} in all)" if len(named) > most else "")


def _tidy(number: float) -> str:
    return f"{0.0 if abs(number) < 1e-12 else number:.4g}"


def _indices(value: Tensor) -> list[str]:
    if value.numel() == 1:
        return [""]
    shape = [size for size in value.shape if size != 1]
    grid = torch.cartesian_prod(*(torch.arange(size, device="cpu") for size in shape)).reshape(
        value.numel(), -1
    )
    return [f"[{', '.join(map(str, row))}]" for row in grid.tolist()]


def _standardised(curvature: Curvature) -> list[str]:
    other = curvature.standardised
    lines = _heading("If the features were standardised (mean 0, standard deviation 1)")
    before, after = curvature.condition_number, other.condition_number
    if other.rank == 0:
        return []
    verdict = (
        "Much less to train: it is worth doing."
        if after < before / 2
        else "Little would change."
        if after < 2 * before
        else "It would not help."
    )
    lines += _figure(
        "condition number",
        _number(after),
        f"instead of {_number(before)}",
        f"A tenth of the distance would be left after {_epochs(after)} at the best rate, "
        f"{rate_figure(other.best_lr)}, rather than {_epochs(before)}. {verdict}",
    )
    return lines
