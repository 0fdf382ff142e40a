"""gdcore.functional where PyTorch programs use a loss: checkpoints, hooks, modes."""

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import gdcore

from .loss_cases import cases, selections

pytestmark = pytest.mark.usefixtures("device")

functional = gdcore.functional


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("name", cases())
def test_checkpoint(name: str, reentrant: bool) -> None:
    case = cases(weighted=False)[name]
    results = []
    for run in (case.fused, lambda *t: checkpoint(case.fused, *t, use_reentrant=reentrant)):
        leaves = case.leaves()
        loss = run(*leaves)
        loss.backward()
        results.append([loss, *(leaf.grad for leaf in leaves)])
    assert all(map(torch.equal, *results))


@pytest.mark.parametrize("name", cases())
def test_hooks_on_the_loss_and_its_arguments(name: str) -> None:
    case = cases()[name]
    leaves, seen = case.leaves(), []
    for leaf in leaves:
        leaf.register_hook(lambda grad: seen.append(grad) or 2 * grad)
    loss = case.fused(*leaves)
    loss.register_hook(lambda grad: 3 * grad)
    loss.backward()
    assert len(seen) == len(leaves)
    others = case.leaves()
    slopes = torch.autograd.grad(case.fused(*others), others)
    for leaf, slope in zip(leaves, slopes, strict=True):
        assert leaf.grad is not None
        torch.testing.assert_close(leaf.grad, 6 * slope, rtol=4 * 2.0**-53, atol=0)


@pytest.mark.parametrize("name", cases())
def test_saved_tensors_pass_through_hooks(name: str) -> None:
    case = cases()[name]
    leaves, packed = case.leaves(), []

    def pack(tensor: Tensor) -> Tensor:
        packed.append(tensor)
        return tensor.clone()

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = case.fused(*leaves)
    loss.backward()
    assert len(packed) >= len(leaves)


@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled")
@pytest.mark.parametrize("name", cases())
def test_anomaly_mode(name: str) -> None:
    case = cases()[name]
    with torch.autograd.detect_anomaly():
        case.fused(*case.leaves()).backward()
        leaves = case.leaves()
        with torch.no_grad():
            leaves[0].fill_(torch.inf)  # ∞ - ∞ or ∞ · 0 somewhere in a gradient
        loss = case.fused(*leaves) * 0.0
        with pytest.raises(RuntimeError, match="returned nan values"):
            loss.backward()


@pytest.mark.parametrize(("name", "reduction", "weighted"), selections())
def test_modes_without_a_graph(name: str, reduction: str, weighted: bool) -> None:
    case = cases(reduction, weighted)[name]
    expected = case.fused(*case.leaves())
    assert expected.requires_grad
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            value = case.fused(*case.inputs)
            again = case.fused(*case.leaves())
        assert torch.equal(value, expected.detach())
        assert not value.requires_grad
        assert torch.equal(again, value)
    assert value.is_inference()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", ["mse", "linear_mse", "polynomial_mse"])
def test_versions_are_checked_with_weights_and_in_half_types(name: str, dtype: torch.dtype) -> None:
    """Also where the loss saves copies in another dtype."""
    case = cases("mean", True, dtype)[name]
    leaves = case.leaves()
    case.fused(*leaves).backward(retain_graph=True)
    loss = case.fused(*leaves)
    with torch.no_grad():
        leaves[0].add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("dtypes", [("float16", "float32"), ("float32", "float64")], ids=str)
def test_versions_are_checked_of_what_is_promoted(dtypes: tuple[str, str], place: int) -> None:
    for fused in (gdcore.functional.mse_loss, torch.nn.functional.mse_loss):
        y, target = (torch.ones(4, dtype=getattr(torch, dtype)) for dtype in dtypes)
        y.requires_grad_()
        loss = fused(y, target)
        with torch.no_grad():
            (y, target)[place].add_(1.0)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


@pytest.mark.parametrize("name", cases())
def test_accumulation_and_clipping(name: str) -> None:
    """Three backward calls add up, and clip_grad_norm_ may write what they gave."""
    case = cases()[name]
    leaves = case.leaves()
    for _ in range(3):
        case.fused(*leaves).backward()
    others = case.leaves()
    slopes = torch.autograd.grad(case.plain(*others), others)
    for leaf, slope in zip(leaves, slopes, strict=True):
        torch.testing.assert_close(leaf.grad, 3 * slope, rtol=1e-12, atol=1e-12)
    norm = nn.utils.clip_grad_norm_(leaves, 0.5)
    torch.testing.assert_close(
        norm, 3 * torch.stack([s.norm() for s in slopes]).norm(), rtol=1e-12, atol=0
    )
    clipped = torch.stack([leaf.grad.norm() for leaf in leaves if leaf.grad is not None]).norm()
    assert 0.49 < clipped.item() <= 0.5


def test_what_a_backward_gave_is_the_users() -> None:
    """Given to .grad without a copy: a second backward must not write into the first's result."""
    weight = torch.randn(1, 3, requires_grad=True)
    loss = functional.linear_mse_loss(torch.randn(4, 3), weight, None, torch.randn(4, 1))
    loss.backward(retain_graph=True)
    assert weight.grad is not None
    first, kept = weight.grad, weight.grad.clone()
    weight.grad = None
    first.zero_()
    loss.backward()
    assert torch.equal(weight.grad, kept)
