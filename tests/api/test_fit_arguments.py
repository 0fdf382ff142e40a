"""Arguments of fit that are wrong: said by name, before anything is written or drawn."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau, StepLR
from torch.utils.data import DataLoader, Dataset, TensorDataset

import gdcore
from gdcore import _ops

from .refusal import nothing_written, refused

pytestmark = pytest.mark.usefixtures("device")


class Setup:
    def __init__(self) -> None:
        self.model = nn.Linear(3, 2)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        self.x, self.y = torch.ones(5, 3), torch.zeros(5, 2)

    def fit(self, **options: Any) -> gdcore.History:
        given = {
            "model": self.model,
            "loss_fn": nn.MSELoss(),
            "optimizer": self.optimizer,
            "data": (self.x, self.y),
            "epochs": 2,
            **options,
        }
        return gdcore.fit(**given)  # type: ignore[arg-type]


class Numbers(Dataset[Any]):
    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Any:
        return torch.ones(3), torch.zeros(2)


def loader(s: Setup, **options: Any) -> Any:
    return DataLoader(TensorDataset(s.x, s.y), **options)


def other_optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1)


Case = tuple[Callable[[Setup], dict[str, Any]], type[Exception], str, tuple[str, ...]]
CASES: dict[str, Case] = {
    "no model": (lambda s: {"model": None}, TypeError, "model", ("NoneType",)),
    "a class of models": (lambda s: {"model": nn.Linear}, TypeError, "model", ("Linear itself",)),
    "no loss": (lambda s: {"loss_fn": "mse"}, TypeError, "loss_fn", ("str",)),
    "no optimizer": (lambda s: {"optimizer": 0.1}, TypeError, "optimizer", ("float",)),
    "epochs": (lambda s: {"epochs": -1}, ValueError, "epochs", ("0", "-1")),
    "half an epoch": (lambda s: {"epochs": 0.5}, TypeError, "epochs", ("int", "float")),
    "a truth of epochs": (lambda s: {"epochs": True}, TypeError, "epochs", ("bool",)),
    "endless epochs": (lambda s: {"epochs": 2**41}, ValueError, "epochs", ("at most",)),
    "batch_size": (lambda s: {"batch_size": 0}, ValueError, "batch_size", ("0",)),
    "a batch of 2.0": (lambda s: {"batch_size": 2.0}, TypeError, "batch_size", ("float",)),
    "shuffled whole": (lambda s: {"shuffle": True}, ValueError, "shuffle", ("batch_size",)),
    "shuffle": (lambda s: {"shuffle": "yes"}, TypeError, "shuffle", ("bool", "str")),
    "generator": (
        lambda s: {"generator": 3, "batch_size": 2},
        TypeError,
        "generator",
        ("torch.Generator", "int"),
    ),
    "a generator for nothing": (
        lambda s: {"generator": torch.Generator()},
        ValueError,
        "generator",
        ("batch_size",),
    ),
    "log_every": (lambda s: {"log_every": 0}, ValueError, "log_every", ("1",)),
    "record_every": (lambda s: {"record_every": "1"}, TypeError, "record_every", ("str",)),
    "validate_every": (lambda s: {"validate_every": 0}, ValueError, "validate_every", ("1",)),
    "callback_every": (lambda s: {"callback_every": 0}, ValueError, "callback_every", ("1",)),
    "callbacks": (lambda s: {"callbacks": [3]}, TypeError, "callbacks", ("int",)),
    "callbacks of an int": (lambda s: {"callbacks": 3}, TypeError, "callbacks", ("int",)),
    "metrics of an int": (
        lambda s: {"metrics": 3, "validation": (s.x, s.y)},
        TypeError,
        "metrics",
        ("names or functions", "int"),
    ),
    "progress": (lambda s: {"progress": 1}, TypeError, "progress", ("bool", "int")),
    "strict": (lambda s: {"strict": None}, TypeError, "strict", ("bool",)),
    "record_steps": (lambda s: {"record_steps": 1}, TypeError, "record_steps", ("bool",)),
    "method": (lambda s: {"method": "fast"}, ValueError, "method", ("stepwise", "'fast'")),
    "clipping": (lambda s: {"max_grad_norm": 0.0}, ValueError, "max_grad_norm", ("0",)),
    "clipping by a string": (
        lambda s: {"max_grad_norm": "1"},
        TypeError,
        "max_grad_norm",
        ("str",),
    ),
    "scheduler": (lambda s: {"scheduler": StepLR}, TypeError, "scheduler", ("type",)),
    "another's scheduler": (
        lambda s: {"scheduler": StepLR(other_optimizer(), 1)},
        ValueError,
        "scheduler",
        ("another",),
    ),
    "scheduler_interval, by itself": (
        lambda s: {"scheduler_interval": None},
        ValueError,
        "scheduler_interval",
        ("None",),
    ),
    "validation with other weights": (
        lambda s: {"validation": (s.x, s.y, torch.ones(4))},
        ValueError,
        "validation",
        ("weight", "(4,)"),
    ),
    "scheduler_interval": (
        lambda s: {"scheduler": StepLR(s.optimizer, 1), "scheduler_interval": "batch"},
        ValueError,
        "scheduler_interval",
        ("'batch'",),
    ),
    "a plateau of steps": (
        lambda s: {"scheduler": ReduceLROnPlateau(s.optimizer), "scheduler_interval": "step"},
        ValueError,
        "scheduler_interval",
        ("ReduceLROnPlateau",),
    ),
    "no data": (lambda s: {"data": None}, TypeError, "data", ("(x, y)", "NoneType")),
    "x alone": (lambda s: {"data": (s.x,)}, TypeError, "data", ("1 of them",)),
    "four": (lambda s: {"data": (s.x, s.x, s.x, s.y)}, TypeError, "data", ("4 of them",)),
    "no inputs": (lambda s: {"data": ((), s.y)}, TypeError, "x", ("tuple",)),
    "no rows": (lambda s: {"data": (s.x[:0], s.y[:0])}, ValueError, "data", ("(0, 3)",)),
    "rows that differ": (
        lambda s: {"data": (s.x, s.y[:4]), "batch_size": 2},
        ValueError,
        "y",
        ("5 rows", "(4, 2)"),
    ),
    "rows of a tuple": (
        lambda s: {"data": ((s.x, s.x[:4]), s.y), "batch_size": 2},
        ValueError,
        "x[1]",
        ("5 rows", "(4, 3)"),
    ),
    "weights": (lambda s: {"weight": [1.0]}, TypeError, "weight", ("list",)),
    "weights of other rows": (
        lambda s: {"weight": torch.ones(4)},
        ValueError,
        "weight",
        ("(5,)", "(5, 2)", "(4,)"),
    ),
    "weights twice": (
        lambda s: {"weight": torch.ones(5), "data": (s.x, s.y, torch.ones(5))},
        ValueError,
        "weight",
        ("once",),
    ),
    "a dataset without batches": (
        lambda s: {"data": Numbers()},
        ValueError,
        "batch_size",
        ("None",),
    ),
    "a loader and batches": (
        lambda s: {"data": loader(s), "batch_size": 2},
        ValueError,
        "batch_size",
        ("DataLoader",),
    ),
    "a loader and weights": (
        lambda s: {"data": loader(s), "weight": torch.ones(5)},
        ValueError,
        "weight",
        ("DataLoader",),
    ),
    "a loader without batches": (
        lambda s: {"data": loader(s, batch_size=6, drop_last=True)},
        ValueError,
        "batch_size",
        ("at most 5", "6"),
    ),
    "validation": (lambda s: {"validation": s.x[0]}, TypeError, "validation", ("Tensor",)),
}


@pytest.mark.parametrize("case", CASES)
def test_refused(case: str) -> None:
    setup = Setup()
    make, kind, argument, parts = CASES[case]
    options = make(setup)
    random = torch.get_rng_state()
    with (
        nothing_written(setup.x, setup.y, model=setup.model, optimizer=setup.optimizer),
        refused(kind, argument, *parts),
    ):
        setup.fit(**options)
    assert torch.equal(torch.get_rng_state(), random)
    assert setup.fit().loss.isfinite().all()


def test_a_rate_above_the_largest_stable_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Said before the first step, where the runner knows it, and pointing at the user's line."""
    from gdcore._loop import choice as _choice

    def knowing(kind: Any) -> Any:
        class Knows(kind):  # type: ignore[misc]
            largest_stable_lr = 0.05

            def surely_stable(self, rate: float) -> bool:
                return rate <= 0.05

        return Knows

    monkeypatch.setattr(_choice, "StepwiseRunner", knowing(_choice.StepwiseRunner))
    if _ops.cuda is not None:
        on_cuda = knowing(_choice._cuda_runner())
        monkeypatch.setattr(_choice, "_cuda_runner", lambda: on_cuda)
    setup = Setup()
    with pytest.warns(RuntimeWarning, match=r"lr=0\.1 is above 0\.05") as caught:
        gdcore.fit(setup.model, nn.MSELoss(), setup.optimizer, (setup.x, setup.y), epochs=1)
    assert caught[0].filename == __file__
    with (
        nothing_written(setup.x, model=setup.model, optimizer=setup.optimizer),
        pytest.raises(RuntimeWarning, match=r"lr=0\.1"),  # an error, where warnings are
    ):
        setup.fit()
    setup.optimizer.param_groups[0]["lr"] = 0.05
    setup.fit()
    setup.optimizer.param_groups[0]["lr"] = 1e30
    setup.y[0] = 1.0
    with pytest.raises(gdcore.DivergenceError) as info, pytest.warns(RuntimeWarning):
        setup.fit(epochs=100, method="stepwise")
    assert info.value.largest_stable_lr == 0.05
    assert "lr=1e+30, above 0.05" in str(info.value)


def test_epochs_of_no_length_still_check_the_data() -> None:
    setup = Setup()
    with refused(ValueError, "y", "(5, 2)", "(5,)"):
        setup.fit(epochs=0, data=(setup.x, setup.y[:, 0]))
    history = setup.fit(epochs=0, batch_size=2)
    assert len(history.loss) == len(history.lr) == 0


def test_a_loader_that_gives_nothing() -> None:
    class Nothing(torch.utils.data.IterableDataset[Tensor]):
        def __iter__(self) -> Any:
            return iter(())

    with refused(ValueError, "data", "at least one batch"):
        Setup().fit(data=DataLoader(Nothing()))
