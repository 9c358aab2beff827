"""The columns that an estimator sees: each has the bits that the library's own steps give, and files are checked."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from ml.errors import ModelFileError
from ml.model.design import Design, DesignColumn, Operation
from ml.tables.dataset import Feature
from tests.conftest import for_each

FEATURES = (
    Feature(key="age", title="age", has_gaps=True),
    Feature(key="port", title="port", choices=("C", "Q", "S")),
)
SCALED = (Operation("subtract", (29.7,)), Operation("divide", (14.5,)))
COLUMNS = (
    DesignColumn(feature=0, operations=(Operation("fill", (28.0,)), *SCALED)),
    DesignColumn(feature=1, table=(None, 0.0, 1.0, 0.0, 0.0)),
    DesignColumn(feature=0, is_missing=True),
    DesignColumn(feature=0, operations=(Operation("bin", (10.0, 20.0)), Operation("equals", (1.0,)))),
    DesignColumn(feature=1, table=(-1.0, -1.0, 0.0, 1.0, 2.0), operations=(Operation("add", (0.5,)),)),
    DesignColumn(
        feature=0, operations=(Operation("fill", (2.0,)), Operation("subtract", (1.0,)), Operation("divide", (0.3,)))
    ),
    DesignColumn(feature=0, operations=(Operation("log1p"),)),
)
ROWS = np.array([[38.0, 0.0], [np.nan, -1.0], [10.0, np.nan], [20.0, 2.0], [1e30, 1.0]])


def test_a_design_has_the_values_of_its_columns() -> None:
    matrix = Design(COLUMNS).matrix(ROWS)

    for place, column in enumerate(COLUMNS):
        assert np.array_equal(matrix[:, place], column.values(ROWS[:, column.feature]), equal_nan=True)
    assert matrix[0, 0] == (38.0 - 29.7) / 14.5
    assert matrix[:, 3].tolist() == [0.0, 0.0, 1.0, 0.0, 0.0]
    assert matrix[:, 2].tolist() == [0.0, 1.0, 0.0, 0.0, 0.0]
    assert np.array_equal(matrix[:, 1], [1.0, 0.0, np.nan, 0.0, 0.0], equal_nan=True)
    assert np.array_equal(Design(COLUMNS).matrix(ROWS[2:3]), matrix[2:3], equal_nan=True)


def test_columns_are_the_same_after_a_file() -> None:
    assert msgspec.json.decode(msgspec.json.encode(COLUMNS), type=tuple[DesignColumn, ...]) == COLUMNS
    for column in COLUMNS:
        column.check(FEATURES)


@for_each(
    "column",
    [
        DesignColumn(feature=2),
        DesignColumn(feature=-1),
        DesignColumn(feature=1),
        DesignColumn(feature=1, table=(0.0,) * 4),
        DesignColumn(feature=0, table=(0.0,) * 5),
        DesignColumn(feature=0, operations=(Operation("fill", (float("inf"),)),)),
        DesignColumn(feature=0, operations=(Operation("add"),)),
        DesignColumn(feature=0, operations=(Operation("log", (1.0,)),)),
        DesignColumn(feature=0, operations=(Operation("bin", (2.0, 1.0)),)),
        DesignColumn(feature=0, operations=SCALED * 60),
        DesignColumn(feature=0, operations=(Operation("divide", (float("nan"),)),)),
    ],
)
def test_a_column_that_no_model_can_have_is_refused(column: DesignColumn) -> None:
    with pytest.raises(ModelFileError):
        column.check(FEATURES)
