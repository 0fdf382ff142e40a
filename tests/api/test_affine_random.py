"""Random models from a grammar: what is affine is accepted nearly always, what is not never."""

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from gdcore._recognition import rules as _affine_rules
from gdcore._recognition import trace as _trace
from gdcore._recognition.rules import Rules
from gdcore._recognition.terms import Affine
from gdcore.affine import AffineForm, affine_form

from .affine_cases import predicted, taken
from .affine_grammar import D, Grammar, N, Node

MODELS = 500


def draw(seed: int) -> tuple[Node, list[Tensor], Tensor]:
    grammar = Grammar(seed)
    wild = (0.0, 0.0, 0.15, 0.4)[seed % 4]
    node = grammar.tree(3 + seed % 3, wild)
    return node, grammar.parameters, grammar.values(N, D)


def truth(node: Node, parameters: list[Tensor], x: Tensor) -> str:
    """By construction; what no gradient reaches is constant, for PyTorch too."""
    return node.kind if node.run(x).requires_grad else "constant"


def is_affine(node: Node, parameters: list[Tensor], x: Tensor) -> bool:
    """Numerically: second differences of prediction and gradient vanish along random lines.

    Parameters that no gradient reaches stay as they are, as in training.
    """
    grads = torch.autograd.grad(node.run(x).sum(), parameters, allow_unused=True)
    parameters = [p for p, grad in zip(parameters, grads, strict=True) if grad is not None]
    saved = [p.detach().clone() for p in parameters]
    v = torch.randn(node.run(x).shape, dtype=torch.float64)
    values, gradients = [], []
    try:
        for _ in range(3):
            directions = [torch.randn_like(p) for p in saved]
            values.clear()
            gradients.clear()
            for step in (-1.0, 0.0, 1.0, 2.5):
                for p, start, direction in zip(parameters, saved, directions, strict=True):
                    p.data.copy_(start + step * direction)
                out = node.run(x)
                values.append(out.detach())
                found = torch.autograd.grad(out, parameters, v, allow_unused=True)
                gradients.append([torch.zeros(()) if g is None else g for g in found])
            slope = values[2] - values[1]
            for i, step in enumerate((-1.0, 0.0, 1.0, 2.5)):
                if not torch.allclose(values[i], values[1] + step * slope, 1e-8, 1e-8):
                    return False
                for one, other in zip(gradients[i], gradients[1], strict=True):
                    if not torch.allclose(one, other, 1e-8, 1e-8):
                        return False
    finally:
        for p, value in zip(parameters, saved, strict=True):
            p.data.copy_(value)
    return True


class Judgement(NamedTuple):
    affine: list[str]
    missed: list[str]
    others: list[str]
    wrong: list[str]


def judge(seeds: range) -> Judgement:
    """What is affine, which of it was missed; what is not, and which of it was accepted."""
    all_of = Judgement([], [], [], [])
    for seed in seeds:
        node, parameters, x = draw(seed)
        kind = truth(node, parameters, x)
        if kind == "constant" or not parameters:
            continue
        found = affine_form(node.run, parameters, x)
        accepted = isinstance(found, AffineForm)
        text = f"{seed}: {node.text}: {found}"
        (all_of.affine if kind == "affine" else all_of.others).append(text)
        if kind == "affine" and not accepted:
            all_of.missed.append(text)
        if kind != "affine" and accepted and not is_affine(node, parameters, x):
            all_of.wrong.append(text)
    return all_of


def test_random_models() -> None:
    found = judge(range(MODELS))
    assert not found.wrong, "\n".join(found.wrong)
    assert len(found.affine) >= 180
    assert len(found.others) >= 120
    assert len(found.missed) <= 0.05 * len(found.affine), "\n".join(found.missed)


def test_the_forms_are_the_models() -> None:
    checked = 0
    for seed in range(MODELS):
        node, parameters, x = draw(seed)
        if seed % 4 > 1 or checked == 100 or truth(node, parameters, x) != "affine":
            continue
        if isinstance(affine_form(node.run, parameters, x), AffineForm):
            form = taken(node.run, parameters, x)
            checked += 1
            if form.rowwise:
                some = torch.tensor([5, 0, 2, 5])
                few = predicted(form).view(N, -1)[some]
                torch.testing.assert_close(node.run(x[some]).detach().view(4, -1), few)
    assert checked == 100


def wrong_mul(self: Rules, a: Any, b: Any) -> Affine:
    """Takes a product of two affine values for their sum."""
    if isinstance(a, Affine) and isinstance(b, Affine):
        return a.plus(b, self.like)
    return self.times(a, b)


@pytest.mark.parametrize("verified", [True, False])
def test_a_wrong_rule_is_caught(verified: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the comparison with the model; without it, the random models do find it."""
    w = torch.randn(3, dtype=torch.float64, requires_grad=True)
    x = torch.randn(N, D, dtype=torch.float64)
    monkeypatch.setattr(_trace, "_operations", {})
    monkeypatch.setitem(_affine_rules._NAMES, "mul", wrong_mul)
    if not verified:
        monkeypatch.setattr("gdcore.affine.disagreement", lambda *a, **options: (None, 1))
    found = affine_form(lambda x: (x * w * w).sum(1), [w], x)
    assert isinstance(found, AffineForm) is not verified
    if not verified:
        assert judge(range(100)).wrong
