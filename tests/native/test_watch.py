"""What a plan was made from, and every way in which it can change afterwards."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest

from gdcore import _ops


class Plain:
    """An object with a __dict__."""

    def __init__(self) -> None:
        self.hooks: dict[str, int] = OrderedDict()
        self.kept = 1


def watched(value: Plain) -> "_ops.Watch":
    watch = _ops.Watch()
    watch.item(value.__dict__, "kept")
    watch.item(value.__dict__, "absent")
    watch.item(value.hooks, "name")
    watch.empty(value.hooks)
    watch.type(value)
    watch.attribute(value, "hooks")
    return watch


def set_item(mapping: dict[str, Any], key: str, value: object) -> None:
    mapping[key] = value


CHANGES: dict[str, Callable[[Plain], object]] = {
    "an attribute set": lambda value: setattr(value, "kept", 2),
    "an attribute deleted": lambda value: delattr(value, "kept"),
    "an attribute added": lambda value: setattr(value, "absent", None),
    "through the dict": lambda value: set_item(vars(value), "kept", 2),
    "update": lambda value: vars(value).update(kept=2),
    "pop": lambda value: vars(value).pop("kept"),
    "clear": lambda value: vars(value).clear(),
    "setdefault": lambda value: vars(value).setdefault("absent", 3),
    "an ordered dict": lambda value: set_item(value.hooks, "other", 1),
    "an ordered dict's update": lambda value: value.hooks.update(name=1),
    "the type": lambda value: setattr(value, "__class__", type("Other", (Plain,), {})),
    "an attribute replaced": lambda value: setattr(value, "hooks", OrderedDict()),
}


@pytest.mark.parametrize("looks", [0, 1, 3])
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_noticed_however_often_there_was_none(change: str, looks: int) -> None:
    value = Plain()
    watch = watched(value)
    assert all(watch.unchanged() for _ in range(looks))
    try:
        CHANGES[change](value)
        assert not any(watch.unchanged() for _ in range(3))
    except AttributeError:
        assert change == "clear", "an attribute that was read is gone"


def test_what_is_put_back_is_as_it_was() -> None:
    value = Plain()
    watch = watched(value)
    kept = value.kept
    for _ in range(3):
        assert watch.unchanged()
        value.kept = 7
        assert not watch.unchanged()
        value.kept = kept
        vars(value)["unseen"] = object()


def test_a_loop_of_writes_by_python_itself() -> None:
    """The interpreter's own specialised writes count, too."""
    value = Plain()
    watch = watched(value)
    for i in range(300):
        value.kept = i
        assert watch.unchanged() == (i == 1)


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values.append(3),
        lambda values: values.pop(),
        lambda values: values.reverse(),
    ],
)
def test_a_list_is_its_elements(change: Callable[[list[object]], object]) -> None:
    values: list[object] = [object(), object()]
    watch = _ops.Watch()
    watch.elements(values)
    assert watch.unchanged()
    change(values)
    assert not watch.unchanged()
