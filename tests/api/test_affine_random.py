"""Random models from a grammar of operations, whose being affine is known by construction.

A model is a tree. A leaf is x, a constant or a parameter; a node applies an operation, and is
*constant*, *affine* or *neither* by the operation's own rule here, which looks at no tensor. What
is affine must be accepted nearly always, and what is not, never.
"""

import random
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from gdcore import _affine_rules, _trace
from gdcore._affine_rules import Rules
from gdcore._affine_terms import Affine
from gdcore.affine import AffineForm, affine_form

from .affine_cases import predicted, taken

N, D = 7, 3
MODELS = 500
Run = Callable[[Tensor], Tensor]


class Node(NamedTuple):
    """A tree: what it computes, its shape, its kind, and how it reads."""

    run: Run
    shape: tuple[int, ...]
    kind: str
    text: str


class Grammar:
    """Draws models; the parameters that they use are collected."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.torch = torch.Generator().manual_seed(seed)
        self.parameters: list[Tensor] = []

    def values(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.torch, dtype=torch.float64)

    def parameter(self, *shape: int) -> Node:
        if self.parameters and self.random.random() < 0.3:
            same = [p for p in self.parameters if p.shape == shape]
            if same:
                p = self.random.choice(same)
                return Node(lambda x: p, shape, "affine", f"p{tuple(shape)}")
        p = self.values(*shape).requires_grad_()
        self.parameters.append(p)
        return Node(lambda x: p, shape, "affine", f"p{tuple(shape)}")

    def constant(self, *shape: int) -> Node:
        c = self.values(*shape)
        return Node(lambda x: c, shape, "constant", f"c{tuple(shape)}")

    def leaf(self) -> Node:
        pick = self.random.randrange(6)
        if pick == 0:
            return Node(lambda x: x, (N, D), "constant", "x")
        if pick == 1:
            w = self.parameter(D, D)
            return Node(lambda x: x @ w.run(x), (N, D), "affine", f"x @ {w.text}")
        if pick == 2:
            w, b = self.parameter(D, D), self.parameter(D)
            return Node(
                lambda x: torch.nn.functional.linear(x, w.run(x), b.run(x)),
                (N, D),
                "affine",
                f"linear(x, {w.text}, {b.text})",
            )
        shape = self.random.choice([(), (D,), (1, D), (N, D), (N, 1)])
        return self.parameter(*shape) if pick < 5 else self.constant(*shape)

    def tree(self, depth: int, wild: float) -> Node:
        """A tree; `wild` is how often an operation may leave the affine ones."""
        if depth == 0 or self.random.random() < 0.1:
            return self.leaf()
        if self.random.random() < wild:
            return self.wild(self.tree(depth - 1, wild), depth, wild)
        if self.random.random() < 0.5:
            return self.binary(self.tree(depth - 1, wild), self.tree(depth - 1, wild))
        return self.unary(self.tree(depth - 1, wild))

    def unary(self, a: Node) -> Node:
        """An operation that is affine in its argument."""
        s = a.shape
        last = {(): (), (D,): (D,)}.get(s, s)
        options: list[tuple[Run, tuple[int, ...], str]] = [
            (lambda x: -a.run(x), s, f"-({a.text})"),
            (lambda x: 2.5 * a.run(x) - 1, s, f"2.5*({a.text})-1"),
            (lambda x: a.run(x) / 3, s, f"({a.text})/3"),
            (lambda x: a.run(x) ** 1, s, f"({a.text})**1"),
            (lambda x: a.run(x).clone(), s, f"({a.text}).clone()"),
            (lambda x: a.run(x).unsqueeze(0).squeeze(0), last, f"sq({a.text})"),
            (lambda x: (a.run(x) * 1).add_(2).mul_(0.5), s, f"inplace({a.text})"),
            (lambda x: a.run(x).sum(), (), f"sum({a.text})"),
            (lambda x: a.run(x).mean(), (), f"mean({a.text})"),
        ]
        if len(s) == 2:
            m = self.values(s[1], s[1])
            options += [
                (lambda x: a.run(x) @ m, s, f"({a.text}) @ m"),
                (lambda x: a.run(x).T.contiguous().T, s, f"({a.text}).T.T"),
                (lambda x: a.run(x).reshape(-1).view(s), s, f"view({a.text})"),
                (lambda x: a.run(x).flip(1), s, f"flip({a.text})"),
                (lambda x: a.run(x).mean(0), s[1:], f"mean0({a.text})"),
                (lambda x: a.run(x).sum(1, keepdim=True), (s[0], 1), f"sum1({a.text})"),
                (lambda x: a.run(x).cumsum(0), s, f"cumsum({a.text})"),
                (lambda x: a.run(x)[:, :1], (s[0], 1), f"({a.text})[:, :1]"),
                (lambda x: a.run(x)[0], s[1:], f"({a.text})[0]"),
                (lambda x: a.run(x).expand(N, D), (N, D), f"expand({a.text})")
                if s in ((1, D), (N, 1), (N, D))
                else (lambda x: a.run(x).tril(), s, f"tril({a.text})"),
            ]
        run, shape, text = self.random.choice(options)
        return Node(run, shape, a.kind, text)

    def binary(self, a: Node, b: Node) -> Node:
        """A sum, a product, a join: affine unless both factors depend on parameters."""
        shape = tuple(torch.broadcast_shapes(a.shape, b.shape))
        if self.random.random() < 0.25:
            kind = _product(a.kind, b.kind)
            return Node(lambda x: a.run(x) * b.run(x), shape, kind, f"({a.text}) * ({b.text})")
        kind = max(a.kind, b.kind, key=("constant", "affine", "neither").index)
        join = self.random.randrange(6)
        if a.shape == b.shape == (N, D) and join < 2:

            def joined(x: Tensor) -> Tensor:
                return torch.cat([a.run(x), b.run(x)], join)[:N, -D:]

            return Node(joined, shape, kind, f"cat{join}({a.text}, {b.text})")
        if join == 2:

            def chosen(x: Tensor) -> Tensor:
                return torch.where(x[:, :1] > 0, a.run(x), b.run(x))

            return Node(
                chosen,
                tuple(torch.broadcast_shapes(shape, (N, 1))),
                kind,
                f"where({a.text}, {b.text})",
            )
        if join == 3:
            return Node(lambda x: a.run(x) - b.run(x), shape, kind, f"({a.text}) - ({b.text})")
        return Node(lambda x: a.run(x) + b.run(x), shape, kind, f"({a.text}) + ({b.text})")

    def wild(self, a: Node, depth: int, wild: float) -> Node:
        """An operation that is affine in nothing but constants."""
        name, function = self.random.choice(list(WILD.items()))
        kind = "constant" if a.kind == "constant" else "neither"
        if name == "divided by":
            b = self.tree(depth - 1, wild)
            kind = a.kind if b.kind == "constant" else "neither"
            return Node(
                lambda x: a.run(x) / (b.run(x) + 10),
                tuple(torch.broadcast_shapes(a.shape, b.shape)),
                kind,
                f"({a.text}) / ({b.text} + 10)",
            )
        return Node(lambda x: function(a.run(x)), a.shape, kind, f"{name}({a.text})")


def _product(a: str, b: str) -> str:
    if "neither" in (a, b):
        return "neither"
    if a == b == "affine":
        return "neither"
    return "affine" if "affine" in (a, b) else "constant"


WILD: dict[str, Callable[..., Any]] = {
    "relu": torch.relu,
    "abs": torch.abs,
    "exp": lambda a: (a / 8).exp(),
    "square": lambda a: a**2,
    "times itself": lambda a: a * a,
    "sin": torch.sin,
    "clamp": lambda a: a.clamp(-0.5, 0.5),
    "round": torch.round,
    "max": lambda a: torch.maximum(a, torch.zeros((), dtype=a.dtype)),
    "norm": lambda a: a / (1 + a.norm()),
    "sort": lambda a: a.flatten().sort().values.view(a.shape),
    "detached": lambda a: a * 2 - a.detach(),
    "no_grad": torch.no_grad()(lambda a: a * 1.0),
    "divided by": None,
    "if positive": lambda a: a if a.sum() > 0 else -a,
    "half": lambda a: a.half().double(),
    "softmax": lambda a: a.reshape(-1).softmax(0).view(a.shape),
}


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
        monkeypatch.setattr("gdcore.affine.disagreement", lambda *a: (None, True))
    found = affine_form(lambda x: (x * w * w).sum(1), [w], x)
    assert isinstance(found, AffineForm) is not verified
    if not verified:
        assert judge(range(100)).wrong
