"""Recognising models that are affine in their parameters, by watching one real forward.

What a forward does beside its prediction is seen where PyTorch or the model's own attributes,
closure, globals, classes and imported modules show it; what reaches an iterator or random numbers
of its own is refused. Out of sight are: printing and files, objects deeper than a few steps from
the model, variables of the standard library's modules, NumPy arrays and other buffers changed in
place, and hooks on nodes of the autograd graph that leave the gradient as it is. They happen when a
model is recognised and not in a native loop.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ._recognition.names import unique
from ._recognition.normal import NormalForm, normal_form
from ._recognition.reach import Reach
from ._recognition.shapes import NoRuleError
from ._recognition.suitable import PLAIN, unsuitable
from ._recognition.terms import Affine
from ._recognition.trace import Neither, RefusedError, Tracer
from ._recognition.verify import disagreement
from ._recognition.watcher import Watcher

__all__ = ["AffineForm", "NotAffine", "affine_form"]


@dataclass(frozen=True, eq=False)
class AffineForm:
    """``prediction[i, o] = offset[i, o] + Σ_j features[i, j] · θ[index[o, j]]``, with θ[-1] = 0.

    Attributes:
        names: the trained parameters' names, in θ's order.
        parameters: the trained parameters, laid end to end in θ, each once.
        features: (n, q), x itself (the same memory) where it can be.
        index: (k, q), positions in θ, or -1.
        offset: (n, k), or None where it is zero.
        shape: the prediction's own; its elements, row-major, are (n, k).
        stack: how many rows of the features, and of the (n, k) elements, belong to each row of x,
            where those of row i depend on row i of x alone; 0 where they may depend on others.
        origin: what the groups of columns of the features are.
        reads: whether Python saw values of x or of constants on the way, and may do something else
            for other values.
        moves: whether the features are numbers of x in other places, times constants, so that they
            are so for every other x too.
    """

    names: tuple[str, ...]
    parameters: tuple[Tensor, ...]
    features: Tensor
    index: Tensor
    offset: Tensor | None
    shape: torch.Size
    stack: int
    origin: tuple[str, ...]
    reads: bool
    moves: bool

    @property
    def rowwise(self) -> bool:
        """Whether row i of the features depends on row i of x only."""
        return self.stack == 1


@dataclass(frozen=True)
class NotAffine:
    """Why a model is not known to be affine in its parameters, and the line that makes it so."""

    reason: str
    where: str | None = None


def affine_form(
    model: Callable[..., Tensor],
    parameters: Sequence[Tensor],
    x: Tensor | tuple[Tensor, ...],
    counts: Sequence[int] = (),
) -> AffineForm | NotAffine:
    """Write a model's prediction as features · θ + offset, or say why it cannot be.

    The model runs forward a few times: once watched, then at random values of its parameters, on
    some of the rows, and once more as it is. While that lasts the parameters hold those values, so
    nothing else may use them; afterwards they are as before, to the bit and the version. What the
    forward does beside computing (printing, say) happens each time.

    Args:
        model: called as ``model(x)``, or ``model(*x)`` for a tuple.
        parameters: those that the optimizer holds; others are constants, as are those that do not
            require grad.
        x: the input, with rows along its first dimension.
        counts: numbers of rows that the model will be given at once, as batches of x: that rows
            stand alone is tried with so many too.

    Returns:
        The form, for this x and the parameters' present shapes, or the reason why there is none.

    Raises:
        Exception: whatever the model itself raises when called with x.

    Example:
        >>> W, b = torch.zeros(3, 1, requires_grad=True), torch.zeros(1, requires_grad=True)
        >>> form = gdcore.affine.affine_form(lambda x: x @ W + b, [W, b], torch.ones(5, 3))
        >>> form.names, form.origin, tuple(form.features.shape), form.index.tolist()
        (('W', 'b'), ('x', '1'), (5, 4), [[0, 1, 2, 3]])
        >>> gdcore.affine.affine_form(lambda x: x @ W.exp(), [W], torch.ones(5, 3)).reason
        'exp is not affine in its input'

    Reference:
        ``torch.utils._python_dispatch.TorchDispatchMode``, under which the forward is watched.
    """
    xs = x if isinstance(x, tuple) else (x,)
    trained = list({id(p): p for p in parameters if p.requires_grad}.values())
    problem = unsuitable(trained, xs)
    if problem is not None:
        return NotAffine(problem)
    reach = Reach(model)
    hindrance = reach.hindrance()
    if hindrance is not None:
        return NotAffine(f"{hindrance}, which the native loop would not run")
    names = dict(reach.names)
    for i, one in enumerate(xs):
        names[id(one)] = "x" if len(xs) == 1 else f"x{i + 1}"
    try:
        with torch.enable_grad():
            form = _recognised(model, trained, xs, names, reach, counts)
            changed = reach.changed() if counts else None  # with so many rows, perhaps
            return form if changed is None else NotAffine(changed)
    finally:
        reach.restore()


def _recognised(
    model: Callable[..., Tensor],
    trained: list[Tensor],
    xs: tuple[Tensor, ...],
    names: dict[int, str],
    reach: Reach,
    counts: Sequence[int],
) -> AffineForm | NotAffine:
    tracer = Tracer(trained, xs, names)
    out: Any = None
    grads = [parameter.grad for parameter in trained]
    try:
        with tracer, Watcher(tracer):
            out = model(*xs)
    except RefusedError:
        pass
    except Exception as error:
        if tracer.refusal is None:
            reach.restore()
            model(*xs)  # an error of the user's own goes to the user
            return NotAffine(f"it could not be watched ({type(error).__name__}: {error})")
    if any(p.grad is not grad for p, grad in zip(trained, grads, strict=True)):
        for parameter, grad in zip(trained, grads, strict=True):
            parameter.grad = grad
        return NotAffine("the forward itself changes grad")
    if tracer.refusal is not None:
        return NotAffine(*tracer.refusal)
    if type(out) not in PLAIN:
        return NotAffine(f"the prediction is a {type(out).__name__}, not a tensor")
    if out.dtype != trained[0].dtype:
        return NotAffine(f"a prediction of {out.dtype} from parameters of {trained[0].dtype}")
    label = tracer.label(out)
    if label is None:
        return NotAffine("the prediction does not depend on a trained parameter")
    if any(t._backward_hooks for t in tracer.alive if id(t) in tracer.labels):
        return NotAffine("a hook on a tensor, which the native loop would not run")
    function, reached = _graph(out)
    if function is not None:
        return NotAffine(f"{function} is an autograd.Function, whose backward may be anything")
    if not tracer.captured_unchanged():
        return NotAffine("a tensor that the prediction uses was written to afterwards")
    changed = reach.changed()
    if changed is not None:
        return NotAffine(changed)
    # PyTorch leaves a parameter that the gradient does not reach as it is, weight decay and all.
    kept = [parameter for parameter in trained if id(parameter) in reached]
    if len(kept) < len(trained):
        return _recognised(model, kept, xs, names, reach, counts)
    if isinstance(label, Neither):
        return NotAffine(*label)
    return _verified(model, trained, xs, names, label, out, tracer, counts)


def _verified(
    model: Callable[..., Tensor],
    trained: list[Tensor],
    xs: tuple[Tensor, ...],
    names: dict[int, str],
    label: Affine,
    out: Tensor,
    tracer: Tracer,
    counts: Sequence[int],
) -> AffineForm | NotAffine:
    try:
        with torch.no_grad():
            form = normal_form(label, out.detach())
    except NoRuleError as error:
        return NotAffine(str(error))
    form = form._replace(features=_itself(form.features, xs))
    parts = [form.features] if form.offset is None else [form.features, form.offset]
    if any(_overlap(part, parameter) for part in parts for parameter in trained):
        return NotAffine("a parameter's memory is read past autograd")
    given = lambda few: model(*few), xs, form, trained, out, len(tracer.alive), counts
    thorough = bool(counts) and tracer.input.computed
    problem, stack = disagreement(*given, thorough=thorough)
    if problem is not None:
        magnitude = _magnitude(model, trained, xs)
        if magnitude is not None and len(magnitude.features) == len(form.features):
            problem, stack = disagreement(*given, magnitude, thorough=thorough)
    if problem is not None:
        return NotAffine(problem)
    return AffineForm(
        names=unique(names.get(id(p)) or f"param {i}" for i, p in enumerate(trained)),
        parameters=tuple(trained),
        features=form.features,
        index=form.positions,
        offset=form.offset,
        shape=out.shape,
        stack=0 if tracer.input.read else stack,
        origin=form.origin,
        reads=tracer.reads,
        moves=not tracer.input.computed,
    )


def _magnitude(
    model: Callable[..., Tensor], trained: list[Tensor], xs: tuple[Tensor, ...]
) -> NormalForm | None:
    """The form with magnitudes for constants: it bounds the terms of sums that cancel."""
    tracer = Tracer(trained, xs, {}, absolute=True)
    try:
        with tracer, Watcher(tracer):
            out = model(*xs)
        label = tracer.label(out)
        with torch.no_grad():
            return normal_form(label, out.detach()) if isinstance(label, Affine) else None
    except (Exception, RefusedError):  # a model that does not repeat itself is not affine
        return None


def _graph(out: Tensor) -> tuple[str | None, set[int]]:
    """What the prediction's graph holds: the name of a custom function, and the leaves' ids."""
    waiting: list[Any] = [out.grad_fn]
    seen: set[Any] = set()
    leaves = {id(out)}
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if isinstance(node, torch.autograd.function.BackwardCFunction):
            return type(node).__name__.removesuffix("Backward"), leaves
        leaf = getattr(node, "variable", None)
        if leaf is not None:
            leaves.add(id(leaf))
        waiting += [following for following, _ in node.next_functions]
    return None, leaves


def _overlap(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors' memories meet, whoever allocated them."""
    first, second = a.untyped_storage(), b.untyped_storage()
    start, other = first.data_ptr(), second.data_ptr()
    return start < other + second.nbytes() and other < start + first.nbytes()


def _itself(features: Tensor, xs: tuple[Tensor, ...]) -> Tensor:
    """x itself where the features are it."""
    features = features.detach()
    for x in xs:
        if (
            features.data_ptr() == x.data_ptr()
            and features.shape == x.shape
            and features.stride() == x.stride()
            and features.dtype == x.dtype
            and not x.requires_grad
        ):
            return x
    return features
