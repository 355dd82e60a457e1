import datetime as dt
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pytest

from aefeatures._pictures.targets import Target

NIGHT = dt.datetime(2023, 3, 1, 23)
PARIS = pd.Series([pd.Timestamp(NIGHT), pd.NaT]).dt.tz_localize("Europe/Paris")


def target(y, **settings):
    return Target(y, **{"most_classes": 20, **settings})


@pytest.mark.parametrize(
    "y",
    [
        np.array(["2023-03-01T23", "NaT"], "M8[h]"),
        np.array(["2023-03-01T23", "NaT"], "M8[ns]"),
        pd.Series([pd.Timestamp(NIGHT), pd.NaT]),
        pd.DatetimeIndex([NIGHT, None]),
        pd.Series([NIGHT, None], dtype=object),
        PARIS,
        PARIS.astype(object),
        pd.DataFrame({"sold": PARIS}),
        pd.Series(pd.PeriodIndex([NIGHT, None], freq="min")),
        pl.Series([NIGHT, None]),
        pl.Series([NIGHT, None]).dt.replace_time_zone("Europe/Paris"),
        [NIGHT, None],
        [np.datetime64(NIGHT), None],
    ],
)
def test_moments_are_on_a_scale_on_their_own_clock(y):
    found = target(y)
    assert found.classes is None
    assert found.is_date
    seconds = (NIGHT - dt.datetime(1970, 1, 1)).total_seconds()
    np.testing.assert_array_equal(found.numbers, [seconds, np.nan])
    assert found.limits == (seconds, seconds)


@pytest.mark.parametrize(
    "y", [[dt.date(2023, 3, 1)], pl.Series([dt.date(2023, 3, 1)]), np.array(["2023-03-01"], "M8")]
)
def test_days_are_on_a_scale(y):
    assert target(y).is_date
    assert target(y, categorical=True).classes == ["2023-03-01"]


def test_moments_of_several_zones_are_in_utc():
    noon = dt.datetime(2023, 7, 1, 12, tzinfo=dt.UTC)
    east = dt.datetime(2023, 7, 1, 12, tzinfo=dt.timezone(dt.timedelta(hours=2)))
    first, second = target([noon, east]).numbers
    assert first - second == 7200


def test_summer_and_winter_of_a_zone_are_one_zone():
    hours = pd.date_range("2023-01-01", "2023-07-01", freq="181D", tz="Europe/Paris")
    assert np.diff(target(pd.Series(hours)).numbers) == 181 * 86_400


@pytest.mark.parametrize(
    ("y", "values", "name"),
    [
        (pd.Series([dt.timedelta(hours=6), None], name="wait"), [6, np.nan], "wait (hours)"),
        (np.array([1, 90], "m8[s]"), [1, 90], "y (seconds)"),
        (pl.Series("age", [dt.timedelta(days=3), dt.timedelta(days=1)]), [3, 1], "age (days)"),
        ([dt.timedelta(minutes=7)], [7], "y (minutes)"),
    ],
)
def test_durations_are_on_a_scale_with_a_unit(y, values, name):
    found = target(y)
    assert found.classes is None
    assert not found.is_date
    np.testing.assert_allclose(found.numbers, values)
    assert found.name == name


@pytest.mark.parametrize("end", [np.inf, -np.inf])
@pytest.mark.parametrize("known", [[1.0, 2.0], [0.25, 3.0]])
def test_scale_is_over_finite_values(known, end):
    found = target([*known, end, np.nan])
    assert found.classes is None
    assert found.limits == tuple(known)
    np.testing.assert_array_equal(found.numbers, [*known, end, np.nan])


def test_scale_without_finite_values():
    assert target([np.inf, np.nan]).limits == (0, 1)


@pytest.mark.parametrize(
    ("y", "classes"),
    [
        ([True, False], ["False", "True"]),
        (pd.array([True, None, False], dtype="boolean"), ["False", "True", "missing"]),
        (pd.Series([True, None], dtype="bool[pyarrow]"), ["True", "missing"]),
        (pl.Series([True, None]), ["True", "missing"]),
        (pd.array([3, None, 1], dtype="Int64"), ["1", "3", "missing"]),
        (pd.array([2**62 + 1, None], dtype="Int64"), [str(2**62 + 1), "missing"]),
        (pd.array([3.0, None], dtype="Float64"), ["3", "missing"]),
        (pl.Series([3, None, 1]), ["1", "3", "missing"]),
        (pd.array(["b", None], dtype="string"), ["b", "missing"]),
        (["00501", "12345"], ["00501", "12345"]),
        (pd.Series(["00501", "12345"], dtype=object), ["00501", "12345"]),
        ([None, None], ["missing"]),
        (pd.Categorical(["low", "high", None], ["low", "mid", "high"]), ["low", "high", "missing"]),
        (pd.Series([0.5, 1.5], dtype="category"), ["0.5", "1.5"]),
        (pd.cut(pd.Series([1.0, 12.0, 3.0]), [0, 5, 20]), ["(0, 5]", "(5, 20]"]),
        (pl.Series(["low", "high"], dtype=pl.Enum(["low", "high"])), ["low", "high"]),
        (pl.Series(["b", "a"], dtype=pl.Categorical), ["a", "b"]),
        (pd.DataFrame({"kind": ["b", "a"]}), ["a", "b"]),
    ],
)
def test_classes_have_the_names_and_order_of_y(y, classes):
    found = target(y)
    assert found.classes == classes
    missing = pd.isna(np.asarray(y, dtype=object)).ravel()
    np.testing.assert_array_equal(found.numbers[missing], len(classes) - 1)
    assert found.has_missing == missing.any()
    given = np.asarray(y, dtype=object).ravel()[~missing]
    for value, position in zip(given, found.numbers[~missing], strict=True):
        assert str(value) in (found.classes[position], f"{found.classes[position]}.0")


def test_numbers_of_other_types_are_on_a_scale():
    np.testing.assert_array_equal(target([Decimal("1.5"), Decimal(2)]).numbers, [1.5, 2])
    np.testing.assert_array_equal(target(pd.array([0.5, None], "Float64")).numbers, [0.5, np.nan])


@pytest.mark.parametrize("missing", [False, True])
def test_the_rarest_of_many_classes_are_one(missing):
    y = [f"class {i:02}" for i in range(60) for _ in range(2 if i in range(10, 28) else 1)]
    found = target(y + [None] * missing)
    others = ["42 other classes"]
    assert found.classes == [f"class {i}" for i in range(10, 28)] + others + ["missing"] * missing
    assert (found.n_named, found.has_other) == (18, True)
    assert (found.numbers == 18).sum() == 42
    assert target(range(20)).n_named == 20


def test_name_is_that_of_the_series():
    assert target(pd.Series([1], name="a")).name == "a"
    assert target(pl.Series("a", [1])).name == "a"
    assert target(pl.Series([1])).name is None
    assert target(pd.DataFrame({"a": [1]})).name == "a"
    assert target(pd.Series([1], name="a"), name="b").name == "b"
    assert target([1]).name is None


def test_names_have_no_place_on_a_scale():
    with pytest.raises(ValueError, match=r"needs numbers or dates: .*'a'\. Leave categorical at N"):
        target(["a", "b"], categorical=False)
    with pytest.raises(ValueError, match="y should be a 1d array"):
        target([["a", "b"]])
