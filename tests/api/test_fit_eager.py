"""What cannot be fused trains through plain PyTorch: any model, loss and optimizer."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gdcore

from ..devices import NOT_EMULATED
from .training_cases import line

pytestmark = [pytest.mark.usefixtures("device"), NOT_EMULATED]

ROWS = 12
Loss = Callable[[Tensor, Tensor], Tensor]


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(3, 4), nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(torch.tanh(self.inner(x)))  # type: ignore[no-any-return]


def data(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(ROWS, 3, generator=generator, dtype=dtype, device="cpu")
    x = x.to(torch.get_default_device())
    return x, x.sum(1, keepdim=True).sin()


MODELS: dict[str, Callable[[], nn.Module]] = {
    "a network": Network,
    "a class around a layer": lambda: nn.Sequential(nn.Sequential(nn.Linear(3, 1))),
    "batch norm": lambda: nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Linear(2, 1)),
    "dropout": lambda: nn.Sequential(nn.Linear(3, 6), nn.Dropout(0.3), nn.Linear(6, 1)),
}
LOSSES: dict[str, Loss] = {
    "mse": nn.MSELoss(),
    "a function": lambda h, y: torch.mean((h - y) ** 2),
    "Huber": nn.HuberLoss(),
    "L1, summed": nn.L1Loss(reduction="sum"),
}
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
    "our SGD": lambda p: gdcore.optim.SGD(p, lr=0.05, momentum=0.9),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.01, centered=True),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.02, weight_decay=0.01),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.02, amsgrad=True),
    "Adagrad": lambda p: torch.optim.Adagrad(p, lr=0.05),
    "LBFGS": lambda p: torch.optim.LBFGS(p, lr=0.5, max_iter=4),
}


def plain(
    model: nn.Module, loss_fn: Loss, optimizer: torch.optim.Optimizer, steps: int
) -> list[float]:
    x, y = data()
    losses = []
    for _ in range(steps):

        def closure() -> Any:
            optimizer.zero_grad()
            loss = loss_fn(model(x), y)
            loss.backward()
            return loss

        losses.append(torch.as_tensor(optimizer.step(closure)).detach().item())
    return losses


COMBINED = [(model, loss, "SGD") for model in MODELS for loss in LOSSES]
COMBINED += [("batch norm", "mse", optimizer) for optimizer in OPTIMIZERS]
COMBINED += [("a network", "Huber", optimizer) for optimizer in OPTIMIZERS]


@pytest.mark.parametrize("way", ["fit", "train_step"])
@pytest.mark.parametrize(("model", "loss", "optimizer"), COMBINED)
def test_as_a_plain_loop(
    model: str, loss: str, optimizer: str, way: str, device: torch.device
) -> None:
    """Five steps over a dozen rows; gdcore's parts round otherwise than torch's, and what a badly
    scaled step (LBFGS, the root of a small average) does to that is far below the tolerance. Before
    a batch norm a bias has no gradient but rounding, and that root makes steps of it: of at most
    64 units in the last place, beside Adagrad's eps of 1e-10.
    """
    atol = 1e-9 if model == "batch norm" else 1e-12
    if device.type == "cuda" and (model, optimizer) == ("batch norm", "Adagrad"):
        atol = 5 * 0.05 * 64 * 2**-53 / 1e-10
    runs, losses = [], []
    for plainly in (True, False):
        torch.manual_seed(0)
        net = MODELS[model]().double()
        state = OPTIMIZERS[optimizer](net.parameters())
        torch.manual_seed(1)
        if plainly:
            losses.append(plain(net, LOSSES[loss], state, 5))
        elif way == "fit":
            history = gdcore.fit(net, LOSSES[loss], state, data(), epochs=5, method="eager")
            losses.append(history.loss.tolist())
        else:
            step = gdcore.train_step(net, LOSSES[loss], state)
            losses.append([step(*data()).item() for _ in range(5)])
        runs.append([*net.parameters(), *net.buffers(), torch.get_rng_state()])
    torch.testing.assert_close(*losses, rtol=1e-9, atol=1e-12)
    for ours, theirs in zip(*runs, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=atol)


def test_functions_over_tensors_and_several_inputs() -> None:
    x1, x2 = data()[0][:, :1], data()[0][:, 1:2]
    y = 2 * x1 - 3 * x2 + 1
    w1, w2, b = (torch.zeros(1, dtype=torch.float64, requires_grad=True) for _ in range(3))
    optimizer = torch.optim.SGD([w1, w2, b], lr=0.2)

    def model(first: Tensor, second: Tensor) -> Tensor:
        return first * w1 + second * w2 + b

    history = gdcore.fit(model, F.mse_loss, optimizer, ((x1, x2), y), epochs=400, record_every=400)
    assert history.parameters.keys() == {"w1", "w2", "b"}
    for parameter, expected in ((w1, 2.0), (w2, -3.0), (b, 1.0)):
        assert abs(parameter.item() - expected) < 1e-3
    batched = gdcore.fit(model, F.mse_loss, optimizer, ((x1, x2), y), epochs=2, batch_size=5)
    assert batched.loss[-1] < 1e-5


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("per_element", [False, True])
def test_weights(per_element: bool, reduction: str) -> None:
    x, y = data()
    y = torch.cat([y, 2 * y], 1)
    weight = torch.linspace(0, 2, ROWS, dtype=torch.float64)
    elements = weight[:, None].expand(ROWS, 2)
    model = nn.Linear(3, 2, dtype=torch.float64)
    other = copy.deepcopy(model)
    plain_sgd = torch.optim.SGD(other.parameters(), lr=0.01)
    for _ in range(4):
        plain_sgd.zero_grad()
        loss = (elements * (other(x) - y) ** 2).sum()
        (loss / elements.sum() if reduction == "mean" else loss).backward()
        plain_sgd.step()
    given = elements if per_element else weight
    known = nn.MSELoss(reduction=reduction)
    for loss_fn, data_of, argument in (
        (known, (x, y, given), None),
        (known, (x, y), given),
        (lambda h, y: getattr((h - y) ** 2, reduction)(), (x, y), given),
    ):
        mine = copy.deepcopy(model)
        optimizer = torch.optim.SGD(mine.parameters(), lr=0.01)
        gdcore.fit(mine, loss_fn, optimizer, data_of, epochs=4, weight=argument, method="eager")
        for ours, theirs in zip(mine.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-13)


def test_clipping() -> None:
    x, y = data()
    runs = []
    for ours in (True, False):
        torch.manual_seed(0)
        model = nn.Linear(3, 1, dtype=torch.float64)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        if ours:
            options: Any = {"max_grad_norm": 0.1, "method": "eager"}
            gdcore.fit(model, nn.MSELoss(), optimizer, (x, 10 * y), epochs=3, **options)
        for _ in range(0 if ours else 3):
            optimizer.zero_grad()
            nn.functional.mse_loss(model(x), 10 * y).backward()
            assert nn.utils.clip_grad_norm_(model.parameters(), 0.1) > 0.2
            optimizer.step()
        runs.append([*model.parameters()])
    for mine, theirs in zip(*runs, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("method", ["stepwise", "compressed", "eager"])
@pytest.mark.parametrize("what", ["max_grad_norm", "gradient_norm_below"])
def test_the_norm_is_of_what_the_optimizer_holds(method: str, what: str) -> None:
    x, y = data()
    torch.manual_seed(0)
    model = nn.Linear(3, 1, dtype=torch.float64)
    optimizer = torch.optim.SGD([model.bias], lr=0.1)
    slopes = torch.autograd.grad(nn.functional.mse_loss(model(x), 10 + y), [*model.parameters()])
    before, size = model.bias.detach().clone(), slopes[1].norm().item()
    assert slopes[0].norm().item() > 0.01 * size
    options: Any = {"max_grad_norm": size / 2}
    if what == "gradient_norm_below":
        options = {"stop": gdcore.stop_when(gradient_norm_below=1.0001 * size)}
    loss_fn = nn.MSELoss()
    history = gdcore.fit(model, loss_fn, optimizer, (x, 10 + y), epochs=1, method=method, **options)
    assert history.plan.method == method
    step = 0.05 * slopes[1] if what == "max_grad_norm" else torch.zeros(1)
    torch.testing.assert_close(before - model.bias.detach(), step.double(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("way", ["fit", "train_step"])
def test_gradients_are_left_alone_and_hooks_run(way: str) -> None:
    model, x, y = Network().double(), *data()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ran: list[str] = []
    model.register_forward_hook(lambda *_: ran.append("forward"))
    optimizer.register_step_post_hook(lambda *_: ran.append("step"))
    model.inner.weight.register_post_accumulate_grad_hook(lambda p: ran.append("grad"))
    model.outer.bias.requires_grad_(False)
    bias = model.outer.bias.clone()
    for i, parameter in enumerate(model.parameters()):
        parameter.grad = torch.full_like(parameter, 7.0) if i % 2 else None
    before = [parameter.grad for parameter in model.parameters()]
    if way == "fit":
        gdcore.fit(model, nn.MSELoss(), optimizer, (x, y), epochs=1)
    else:
        gdcore.train_step(model, nn.MSELoss(), optimizer)(x, y)
    assert ran == ["forward", "grad", "step"]
    for parameter, grad in zip(model.parameters(), before, strict=True):
        assert parameter.grad is grad
        assert grad is None or bool((grad == 7).all())
    assert torch.equal(model.outer.bias, bias)


def test_a_step_goes_from_native_to_eager_and_back() -> None:
    """The same numbers to a few roundings, whichever way each step went."""
    model, x, y = line(dtype=torch.float64)
    other = copy.deepcopy(model)
    steps = [
        gdcore.train_step(
            each, nn.MSELoss(), torch.optim.SGD(each.parameters(), lr=0.1, momentum=0.9)
        )
        for each in (model, other)
    ]
    calls: list[Any] = []
    for rows in (6, 3, 6, 1, 5, 6):
        handle = None
        if rows in (3, 1):
            handle = model.register_forward_hook(lambda *_: calls.append(1))
        losses = [step(x[:rows], y[:rows]) for step in steps]
        torch.testing.assert_close(*losses, rtol=1e-12, atol=1e-15)
        assert losses[0].shape == ()
        assert not losses[0].requires_grad
        if handle is not None:
            handle.remove()
    assert len(calls) == 2
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)


def test_divergence() -> None:
    """Found before the update that it would lead to; parameters are the last finite ones."""
    x, y = data()
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1)).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=10.0)
    with pytest.raises(gdcore.DivergenceError) as info:
        gdcore.fit(model, nn.MSELoss(), optimizer, (x, y), epochs=1000, record_every=1)
    error = info.value
    assert error.history.plan.method == "eager"
    assert len(error.history.loss) == error.epoch + 1
    assert error.history.loss[:-1].isfinite().all()
    assert not error.history.loss[-1].isfinite()
    assert all(p.isfinite().all() for p in model.parameters())
    # What was recorded is every update that was made, the one past the finite numbers too.
    assert len(error.history.recorded_epochs) == error.epoch


def test_what_the_plan_says(device: torch.device) -> None:
    x, y = data()
    model = Network().double()
    optimizer = torch.optim.Adagrad(model.parameters())
    for options, said in (({}, "Adagrad"), ({"method": "eager"}, "asked for")):
        history = gdcore.fit(model, nn.MSELoss(), optimizer, (x, y), epochs=1, **options)  # type: ignore[arg-type]
        assert history.plan.method == "eager"
        assert said in str(history.plan)
    with pytest.raises(ValueError, match=r"^optimizer: expected .*got Adagrad"):
        gdcore.fit(model, nn.MSELoss(), optimizer, (x, y), epochs=1, strict=True)
    model32, x32, y32 = line()
    model32.to(torch.bfloat16)
    sgd = torch.optim.SGD(model32.parameters(), lr=0.1)
    history = gdcore.fit(model32, nn.MSELoss(), sgd, (x32.bfloat16(), y32.bfloat16()), epochs=20)
    if device.type == "cuda":
        assert history.plan.method == "stepwise"
    else:
        assert "not all float32 or all float64" in str(history.plan)
    assert history.loss[-1] < history.loss[0]


def test_labels_and_losses_of_other_kinds() -> None:
    """Nothing about it is least squares."""
    x, labels = data(torch.float32)[0], torch.arange(ROWS) % 3
    model = nn.Linear(3, 3)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, labels), 5)
    history = gdcore.fit(model, nn.CrossEntropyLoss(), optimizer, loader, epochs=30)
    assert history.loss.dtype == torch.float32
    assert history.loss[-1] < history.loss[0]


REFUSED: dict[str, tuple[Callable[..., Any], str]] = {
    "a loss of many elements": (lambda m, o, d: (m, nn.L1Loss(reduction="none"), o, d), "loss_fn"),
    "no tensor": (lambda m, o, d: (lambda x: [m(x)], nn.MSELoss(), o, d), "model"),
    "another shape": (lambda m, o, d: (m, nn.MSELoss(), o, (d[0], d[1].squeeze(1))), "y"),
    "weights of a function": (lambda m, o, d: (m, nn.L1Loss(), o, (*d, d[1][:, 0])), "weight"),
    "nothing to train": (
        lambda m, o, d: (m, nn.MSELoss(), torch.optim.SGD([torch.ones(1)], lr=0.1), d),
        "optimizer",
    ),
    "another's parameters": (
        lambda m, o, d: (
            m,
            nn.MSELoss(),
            torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1),
            d,
        ),
        "optimizer",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_even_autograd_cannot_take(case: str) -> None:
    model = Network().double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = [(p.detach().clone(), p._version, p.grad) for p in model.parameters()]
    make, argument = REFUSED[case]
    m, loss, o, d = make(model, optimizer, data())
    with pytest.raises((TypeError, ValueError), match=rf"^{argument}: expected .*got "):
        gdcore.fit(m, loss, o, d, epochs=1)
    for parameter, (value, version, grad) in zip(model.parameters(), before, strict=True):
        assert torch.equal(parameter, value)
        assert parameter._version == version
        assert parameter.grad is grad


def test_rows_in_several_dimensions_are_recognised() -> None:
    """As `nn.Linear` takes them."""
    model, x = nn.Linear(3, 2), torch.randn(4, 5, 3)
    y = torch.randn(4, 5, 2)
    history = gdcore.fit(
        model, nn.MSELoss(), torch.optim.SGD(model.parameters(), lr=0.1), (x, y), epochs=3
    )
    assert history.plan is not None
    assert history.plan.method != "eager"


def test_a_subclass_of_a_dataset_is_read() -> None:
    class Tens(torch.utils.data.TensorDataset):
        def __getitem__(self, index: int) -> tuple[torch.Tensor, ...]:
            x, y = super().__getitem__(index)
            return 10 * x, y

    data = Tens(torch.ones(6, 1), torch.full((6, 1), 10.0))
    model = nn.Linear(1, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.004)
    gdcore.fit(model, nn.MSELoss(), optimizer, data, epochs=50, batch_size=2)
    assert abs(model.weight.item() - 1.0) < 1e-3
