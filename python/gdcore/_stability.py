"""The largest learning rate with which gradient descent converges on a quadratic."""

from typing import Any

__all__ = ["largest_stable_lr"]


def largest_stable_lr(optimizer: Any, curvature: float) -> float | None:
    r"""The largest rate of SGD that converges on a quadratic.

    With the largest curvature λ (that of the weight decay included) and momentum β it is
    ``2 (1 + β) / λ``, with dampening τ that over ``1 - τ``, and with Nesterov momentum
    ``2 (1 + β) / ((1 + 2 β) λ)``.

    Args:
        optimizer: the optimizer.
        curvature: the largest eigenvalue of the loss's Hessian.

    Returns:
        The rate, or None where there is none to be known: another optimizer than SGD, groups with
        settings of their own, ascent.

    Example:
        >>> from gdcore._stability import largest_stable_lr
        >>> weight = torch.nn.Parameter(torch.ones(1))
        >>> largest_stable_lr(torch.optim.SGD([weight], lr=0.1, momentum=0.5), 4.0)
        0.75

    Reference:
        Polyak, Some methods of speeding up the convergence of iteration methods, 1964.
    """
    settings = [
        tuple(
            group.get(key)
            for key in ("momentum", "dampening", "weight_decay", "nesterov", "maximize")
        )
        for group in optimizer.param_groups
    ]
    momentum, dampening, weight_decay, nesterov, maximize = settings[0]
    if dampening is None or settings.count(settings[0]) < len(settings) or maximize:
        return None
    curvature += weight_decay
    if curvature <= 0 or dampening >= 1:
        return None
    if nesterov:
        curvature *= 1 + 2 * momentum
    elif momentum != 0:
        curvature *= 1 - dampening
    return float(2 * (1 + momentum) / curvature)
