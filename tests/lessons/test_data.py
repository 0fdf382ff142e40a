"""CSV files: what is read, and what is said of what cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from gdcore.lessons.data import DataError, read_csv

from .conftest import Command


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "data.csv"
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize(
    "text",
    [
        "1,2\n3,4\n",
        "hours,points\n1,2\n3,4\n",
        " x , y \n1, 2\n\n3 ,4",
        "\ufeffx,y\r\n1,2\r\n3,4\r\n",
        '"x","y"\n"1","2"\n3,4\n',
    ],
)
def test_columns_with_and_without_a_header(tmp_path: Path, text: str) -> None:
    x, y = read_csv(written(tmp_path, text))
    assert x.tolist() == [[1.0], [3.0]]
    assert y.tolist() == [[2.0], [4.0]]


def test_the_last_column_is_the_target(tmp_path: Path) -> None:
    x, y = read_csv(written(tmp_path, "1,2,3\n4,5,6e-1\n"))
    assert x.tolist() == [[1.0, 2.0], [4.0, 5.0]]
    assert y.tolist() == [[3.0], [0.6]]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x,y\n1,2\n3,four\n", "line 3: expected a finite number, got 'four'"),
        ("1,2\n3,nan\n", "line 2: expected a finite number, got 'nan'"),
        ("1,2\n3,1e999\n", "line 2: expected a finite number, got '1e999'"),
        ("1,2\n\n3,\n", "line 3: expected a finite number, got ''"),
        ("1,2\n3\n", "line 2: expected 2 columns with commas between, got 1"),
        ("a,b,c\n1,2\n", "line 2: expected 3 columns with commas between, got 2"),
        ("1\n2\n", "line 1: expected at least 2 columns with commas between, got 1"),
        ("x,y\n", "no numbers in it; expected columns x..., y"),
        ("", "no numbers in it; expected columns x..., y"),
        ("x,y\nu,v\n1,2\n", "line 2: expected a finite number, got 'u'"),
        ("y,x\n1,2\n", "line 1: expected y as the last column, got y, x"),
        ("x;y\n1;2\n", "line 2: expected at least 2 columns with commas between, got 1"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(DataError) as caught:
        read_csv(path)
    assert str(caught.value).startswith(str(path))
    assert said in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_csv(tmp_path / "missing.csv")
    (tmp_path / "latin.csv").write_bytes(b"\xe9,y\n1,2\n")
    with pytest.raises(DataError, match="cannot be read: not UTF-8 text"):
        read_csv(tmp_path / "latin.csv")


def test_the_command_says_it_in_one_line(lessons: Command, tmp_path: Path) -> None:
    path = written(tmp_path, "x,y\n1,2\n3,four\n")
    said = lessons("linear_regression", "--data", path)
    assert (said.status, said.out) == (2, "")
    assert said.err == f"gdcore lessons: {path}, line 3: expected a finite number, got 'four'\n"
