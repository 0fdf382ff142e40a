"""What is read of the user's objects, and remembered where any change of it is to be noticed."""

from typing import Any

from . import _ops


class Look:
    """Reads the user's objects."""

    def item(self, mapping: dict[Any, Any], key: object) -> Any:
        return mapping.get(key)

    def attribute(self, value: object, name: str) -> Any:
        return getattr(value, name)

    def type(self, value: object) -> type:
        return type(value)

    def empty(self, mapping: dict[Any, Any]) -> bool:
        return not mapping

    def mapping(self, values: dict[str, Any]) -> dict[str, Any]:
        return values


class Seen(Look):
    """Reads them, and remembers what it read."""

    def __init__(self) -> None:
        self.watch = _ops.Watch()

    def item(self, mapping: dict[Any, Any], key: object) -> Any:
        self.watch.item(mapping, key)
        return mapping.get(key)

    def attribute(self, value: object, name: str) -> Any:
        self.watch.attribute(value, name)
        return getattr(value, name)

    def type(self, value: object) -> type:
        self.watch.type(value)
        return type(value)

    def empty(self, mapping: dict[Any, Any]) -> bool:
        self.watch.empty(mapping)
        return not mapping

    def mapping(self, values: dict[str, Any]) -> dict[str, Any]:
        self.watch.size(values)
        for key in values:
            self.watch.item(values, key)
        return values

    def elements(self, values: list[Any]) -> None:
        self.watch.elements(values)
