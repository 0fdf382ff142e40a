"""Reading a CSV file of columns x..., y."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import torch
from torch import Tensor

EXPECTED = "columns x..., y: at least two numbers in every line, and a header if you like"


class DataError(ValueError):
    """A file that does not hold what was expected, said in one sentence."""


def read_csv(path: Path) -> tuple[Tensor, Tensor]:
    """Inputs and targets from a CSV file.

    Args:
        path: A file of lines ``x1,...,xd,y``; its first line may name the columns.

    Returns:
        x of shape (n, d) and y of shape (n, 1), both float64.

    Raises:
        DataError: Naming the file, the line and what was expected.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from gdcore.lessons.data import read_csv
        >>> path = Path(tempfile.mkdtemp()) / "hours.csv"
        >>> _ = path.write_text("hours,points\\n1,2\\n2,4\\n")
        >>> x, y = read_csv(path)
        >>> x.tolist(), y.tolist()
        ([[1.0], [2.0]], [[2.0], [4.0]])
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise DataError(f"{path}: cannot be read: {reason}") from None
    rows: list[list[float]] = []
    columns = None
    for line, cells in enumerate(csv.reader(text.splitlines()), start=1):
        if not any(cell.strip() for cell in cells):
            continue
        if columns is None and not any(map(_is_number, cells)):
            columns = len(cells)
            names = [cell.strip().lower() for cell in cells]
            if "y" in names[:-1] and names[-1] != "y":
                raise DataError(
                    f"{path}, line {line}: expected y as the last column, got {', '.join(names)}"
                )
            continue
        if len(cells) < 2 or len(cells) != (columns or len(cells)):
            wanted = f"{columns} columns" if columns not in (None, 1) else "at least 2 columns"
            raise DataError(
                f"{path}, line {line}: expected {wanted} with commas between, got {len(cells)}"
            )
        columns = len(cells)
        rows.append([_number(cell, path, line) for cell in cells])
    if not rows:
        raise DataError(f"{path}: no numbers in it; expected {EXPECTED}")
    table = torch.tensor(rows, dtype=torch.float64)
    return table[:, :-1].contiguous(), table[:, -1:].contiguous()


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _number(cell: str, path: Path, line: int) -> float:
    if _is_number(cell) and math.isfinite(float(cell)):
        return float(cell)
    raise DataError(f"{path}, line {line}: expected a finite number, got {cell.strip()!r}")
