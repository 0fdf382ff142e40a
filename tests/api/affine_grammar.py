"""A grammar of random models, whose being affine is known by construction.

A model is a tree. A leaf is x, a constant or a parameter; a node applies an operation, and is
*constant*, *affine* or *neither* by the operation's own rule here, which looks at no tensor.
"""

import random
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

N, D = 7, 3
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
