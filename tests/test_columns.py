import datetime as dt

import numpy as np
import pandas as pd
import polars as pl
import pytest

from aefeatures._rows.columns import as_times, has_zone, kind_of, make_column

# `test_tables.py` has columns of all types, there and back.


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1.5, None], "number"),
        ([1, 2], "integer"),
        ([True, False], "boolean"),
        (["a", None], "text"),
        ([dt.date(2020, 1, 1), None], "date"),
        ([dt.datetime(2020, 1, 1), None], "date"),
        ([dt.timedelta(1), None], "duration"),
        ([None, None], "unknown"),
        ([[1], [2]], "other"),
    ],
)
def test_kinds_are_those_of_the_values_in_every_library(values, kind):
    objects = np.empty(len(values), dtype=object)
    objects[:] = values
    for column in (objects, pd.Series(values, dtype=object), pl.Series(values)):
        assert kind_of(column) == kind
    if kind not in ("unknown", "other"):
        assert kind_of(pd.Series(values)) == kind


def test_missing_times_stay_missing_and_others_fit_the_type():
    seconds = np.array([0.5, np.nan, 1e15])
    for dtype, year in (("datetime64[ns]", 2261), ("datetime64[us]", 9999)):
        times = as_times(seconds, "date", dtype)
        assert times[0] == np.datetime64("1970-01-01T00:00:00.5")
        assert np.isnat(times[1])
        column = make_column(times, dtype, "pandas")
        assert column.dtype == dtype
        assert column.dt.year[2] == year


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("datetime64[ns, UTC]", True),
        ("arrow timestamp[us, tz=Asia/Tokyo]", True),
        ("Datetime(time_unit='us', time_zone='UTC')", True),
        ("object[UTC]", True),
        ("datetime64[ns]", False),
        ("arrow timestamp[us]", False),
        ("Datetime(time_unit='us', time_zone=None)", False),
        ("object[datetime]", False),
        ("Date", False),
    ],
)
def test_zones_in_names_of_types(dtype, expected):
    assert has_zone(dtype) is expected
