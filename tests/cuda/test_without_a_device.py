"""What of the CUDA path needs no device: the module, plans, errors, and the Python around it.

The Python runs on CPU tensors here, its native calls going to the emulated kernels.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

import gdcore
from gdcore import _ops

from ..api.optimizers import FULL, NAMES
from .test_device_training import bare, loop_of, predicted
from .test_emulated_training import SMALL, problem

_cuda_ops = pytest.importorskip("gdcore._native.cuda_ops", reason="built without the CUDA path")
_cuda_loop = pytest.importorskip("gdcore._native.cuda_loop")
native = _cuda_ops.native
ROOT = Path(__file__).parents[2]


def test_build_info() -> None:
    info = gdcore.build_info()["cuda"]
    assert info["built"] is True
    assert info["architectures"]
    assert info["runtime"].count(".") == 1
    if not torch.cuda.is_available():
        assert info["device"] is None
    count, message = _cuda_ops.devices()
    assert (count == 0) == (info["message"] is not None) == bool(message)


@pytest.mark.parametrize(
    ("architectures", "capability", "fits"),
    [
        ("80-real, 90-real, 100", (8, 0), True),
        ("80-real, 90-real, 100", (8, 9), True),
        ("80-real, 90-real, 100", (12, 0), True),
        ("80-real, 90-real, 100", (7, 5), False),
        ("90-real", (10, 0), False),
        ("90-virtual", (10, 0), True),
        ("native", (7, 5), True),
    ],
)
def test_a_device_that_the_build_has_nothing_for(
    architectures: str, capability: tuple[int, int], fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_cuda_ops, "ARCHITECTURES", architectures)
    monkeypatch.setattr(_cuda_ops, "devices", lambda: (1, ""))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "some device")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    message = gdcore.build_info()["cuda"]["message"]
    assert (message is None) == fits
    if not fits:
        assert "GDCORE_CUDA=OFF" in message


def test_a_build_without_it() -> None:
    hidden = "import sys; sys.modules['gdcore._cuda'] = None; import gdcore"
    shown = (
        "import torch; m = torch.nn.Linear(1, 1); x = torch.ones(3, 1); "
        "fitting = (m, torch.nn.MSELoss(), torch.optim.SGD(m.parameters(), lr=0.1)); "
        "gdcore.fit(*fitting, (x, x), epochs=2, strict=True); "
        "gdcore.train_step(*fitting, strict=True)(x, x); "
        "print(gdcore.build_info()['cuda']['built'])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", f"{hidden}; {shown}"], capture_output=True, text=True
    )
    assert ran.stdout == "False\n", ran.stderr


def test_mixed_devices() -> None:
    """Both are named, before any device is needed; fake tensors stand for those on CUDA."""
    with FakeTensorMode():
        x, y = torch.empty(4, 2, device="cuda"), torch.empty(4, 2)
        for first, second in ((x, y), (y, x)):
            with pytest.raises(
                ValueError, match=r"target: .*(cuda:0.*cpu|CPU.*cuda:0|cpu.*cuda:0)"
            ):
                torch.ops.gdcore.mse(first, second, "mean", True)
        with pytest.raises(
            ValueError, match=r"weight: expected a tensor on cuda:0 as x, got one on cpu"
        ):
            torch.ops.gdcore.linear_mse(x, y[:1], None, x, "mean", False)


def test_fake_results() -> None:
    with FakeTensorMode():
        x, w = torch.empty(4, 2, device="cuda"), torch.empty(3, 2, device="cuda")
        results = torch.ops.gdcore.linear_mse(x, w, None, x.new_empty(4, 3), "mean", True)
        assert [tuple(r.shape) for r in results] == [(), (3, 2), (0,), (4, 2)]
        assert all(r.device.type == "cuda" for r in results)


def test_cpu_tensors_are_refused_natively() -> None:
    x, scratch = torch.zeros(3), torch.zeros(9, dtype=torch.float64)
    with pytest.raises(ValueError, match="expected a tensor on CUDA"):
        native.mse(x, x, None, True, x.new_empty(()), None, None, scratch)


STORAGES = (native.Storage.float32, native.Storage.float64, native.Storage.bfloat16)


@pytest.mark.parametrize("storage", STORAGES, ids=str)
@pytest.mark.parametrize("columns", [1, 3, 4, 17, 64, 128, 129, 512])
@pytest.mark.parametrize("outputs", [1, 2, 5, 16])
def test_linear_plan(storage: Any, columns: int, outputs: int) -> None:
    """Every column and every output has a lane, and a warp whole groups; no row is left over."""
    vector = 4 if storage == STORAGES[0] else 2 if storage == STORAGES[1] else 8
    for rows in (0, 1, 1000, 10**7, 2**33):
        plan = native.linear_plan(storage, rows, columns, outputs)
        assert plan["lanes"] in (1, 2, 4, 8, 16, 32)
        assert plan["lanes"] * plan["chunks"] * vector >= columns
        assert plan["output_blocks"] * plan["outputs"] >= outputs
        assert 1 <= plan["row_blocks"] <= 2048
        assert plan["row_blocks"] <= max(1, -(-rows // plan["rows"]))
        sums = outputs * (columns + 1) + plan["output_blocks"]
        assert plan["row_blocks"] * sums <= 2**21
        parameters = outputs * (columns + 1)
        wanted = native.scratch(storage, rows, columns, outputs, parameters, False, True)
        partials = plan["row_blocks"] * (parameters + plan["output_blocks"])
        assert wanted == 1 + 2 * parameters + partials


def test_fits() -> None:
    assert native.fits_one_block(3, 1, 1)
    assert native.fits_one_block(2000, 1, 1)
    assert native.fits_one_block(66, 65, 1)
    assert not native.fits_one_block(10**6, 1, 1)
    assert not native.fits_one_block(2000, 3, 2)  # more residuals than a block shares
    assert native.linear_fits(512, 16)
    assert not native.linear_fits(513, 1)
    assert not native.linear_fits(1, 17)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize(("d", "k"), [(3, 2), (1, 1), (600, 1), (2, 20)])
def test_linear_mse(on_host: Any, reduction: str, d: int, k: int) -> None:
    """The kernels, and the matrix products that take over from them."""
    x, y = torch.randn(9, d, dtype=torch.float64), torch.randn(9, k, dtype=torch.float64)
    weight, bias = torch.randn(k, d, dtype=torch.float64), torch.randn(k, dtype=torch.float64)
    w = torch.rand(9, k, dtype=torch.float64)
    for own_bias in (bias, None):
        for dx in (True, False):
            ours = on_host.linear_mse(x, weight, own_bias, y, reduction, dx, w)
            theirs = _ops.linear_mse(x, weight, own_bias, y, reduction, dx, w)
            for mine, other in zip(ours, theirs, strict=True):
                assert (mine is None) == (other is None)
                if mine is not None:
                    torch.testing.assert_close(mine, other, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_legendre_mse(on_host: Any, reduction: str) -> None:
    x, y, w = torch.rand(3, 700, dtype=torch.float64)
    theta = torch.randn(4, 1, dtype=torch.float64)
    for weight in (None, w):
        ours, theirs = (m.legendre_mse(x, *theta, y, reduction, weight) for m in (on_host, _ops))
        for mine, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_elementwise(on_host: Any, reduction: str) -> None:
    x, y = torch.randn(3, 4, 5, dtype=torch.float64).transpose(0, 2), torch.randn(5, 4, 3).double()
    w = torch.rand(5, 4, 3, dtype=torch.float64)
    ours, theirs = (m.mse(x, y, reduction, True, w) for m in (on_host, _ops))
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-13, atol=1e-14)


def test_a_factor_from_above(on_host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In place, and nothing is written for a 1; what is not one number alike is torch's to do."""
    gradient = torch.randn(70)
    wanted = 3 * gradient
    kept = gradient.clone()
    monkeypatch.setattr(_ops, "cuda", on_host)
    assert _ops.scaled(gradient, torch.tensor(1.0)) is not gradient  # on the CPU
    monkeypatch.setattr(Tensor, "is_cuda", property(lambda tensor: True))
    assert _ops.scaled(gradient, torch.tensor(1.0)) is gradient
    assert torch.equal(gradient, kept)
    for grad in (torch.tensor(3.0, dtype=torch.float64), torch.full((70,), 3.0)):
        assert torch.equal(_ops.scaled(gradient, grad), wanted)
    assert torch.equal(gradient, kept)
    assert _ops.scaled(gradient, torch.tensor(3.0)) is gradient
    assert torch.equal(gradient, wanted)
    assert _ops.scaled(gradient, torch.tensor(0.5, dtype=torch.float16)) is gradient
    assert torch.equal(gradient, wanted / 2)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("model", "rows", "d", "k"), SMALL[1::3])
def test_train(on_host: Any, model: str, rows: int, d: int, k: int, name: str) -> None:
    """Groups and states are read as torch keeps them, and counts of steps move on."""
    (x, y, _), parameters = problem(model, rows, d, k, torch.float64)
    own, twins = ([bare(p) for p in parameters] for _ in range(2))
    ours = getattr(torch.optim, name)(own, **FULL[name])
    theirs = getattr(torch.optim, name)(twins, **FULL[name])
    losses = []
    for epochs in (1, 4, 3):
        loop = loop_of(model, own, (x, y, None), ours, epochs, record_every=2)
        loop.put(epochs)
        assert loop.wait() is None
        assert loop.records.shape[0] == -(-epochs // 2)
        losses.append(loop.losses)
    for epoch in range(8):
        theirs.zero_grad()
        loss = ((predicted(model, x, twins) - y) ** 2).mean()
        loss.backward()
        theirs.step()
        torch.testing.assert_close(torch.cat(losses)[epoch], loss.detach(), rtol=1e-9, atol=1e-12)
    for mine, other in zip(own, twins, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-8, atol=1e-9)
        left, right = ours.state.get(mine, {}), theirs.state.get(other, {})
        assert left.keys() == right.keys()
        for key in left:
            torch.testing.assert_close(left[key], right[key], rtol=1e-7, atol=1e-9)


def test_divergence_is_put_right(on_host: Any) -> None:
    (x, y, _), parameters = problem("linear", 20, 3, 1, torch.float32)
    own = [bare(p) for p in parameters]
    optimizer = torch.optim.Adam(own, lr=1e25)
    loop = loop_of("linear", own, (x, y, None), optimizer, 30)
    loop.put(30)
    epoch = loop.wait()
    assert epoch is not None
    assert all(p.isfinite().all() for p in own)
    assert optimizer.state[own[0]]["step"] == epoch


def test_unsuited() -> None:
    p, groups = torch.nn.Parameter(torch.ones(1, 3)), [{"params": []}]
    assert "to hold a parameter" in _cuda_loop.unsuited("linear", [p], groups)
    groups = [{"params": [p], "lr": 0.1, "capturable": True}]
    assert "capturable=False" in _cuda_loop.unsuited("linear", [p], groups)
    groups = [{"params": [p], "lr": 0.1}]
    assert _cuda_loop.unsuited("indexed", [p], groups, (2, 3)) is None
    assert "at most 512 columns" in _cuda_loop.unsuited("indexed", [p], groups, (17, 3))
    assert "at most 4 parameters" in _cuda_loop.unsuited("indexed", [p] * 5, groups, (1, 5))
    wide = torch.nn.Parameter(torch.ones(1, 600))
    assert "at most 512 columns" in _cuda_loop.unsuited("linear", [wide], [{"params": [wide]}])
    across = torch.nn.Parameter(torch.ones(3, 2).t())
    assert "contiguous" in _cuda_loop.unsuited("linear", [across], [{"params": [across]}])


def run_kernels(tmp_path: Path, log: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "log").write_text(log)
    command = [sys.executable, str(ROOT / ".ci" / "kernels.py"), str(tmp_path / "log"), "--table"]
    return subprocess.run(command, capture_output=True, text=True)


ONE_KERNEL = """ptxas info    : Compiling entry function '_Z3runv' for 'sm_90'
ptxas info    : Function properties for _Z3runv
    {stack} bytes stack frame, {spills} bytes spill stores, {spills} bytes spill loads
ptxas info    : Used 58 registers, used 1 barriers, 320 bytes smem
"""


def test_the_check_of_spills(tmp_path: Path) -> None:
    good = run_kernels(tmp_path, ONE_KERNEL.format(stack=0, spills=0))
    assert good.returncode == 0
    assert "| 58 | 320 | 0 |" in good.stdout
    for log in (ONE_KERNEL.format(stack=8, spills=0), ONE_KERNEL.format(stack=0, spills=4), ""):
        assert run_kernels(tmp_path, log).returncode == 1
