import copy
import datetime as dt
import warnings
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from sklearn.preprocessing import OneHotEncoder

from aefeatures._rows.tables import TableSurvey, learn_table
from aefeatures._torch.ranks import ALONE, Ranks


def learn(X, chosen="from_dtype", min_frequency=None, max_categories="auto", ranks=ALONE):
    return learn_table(X, chosen, min_frequency, max_categories, ranks)


def with_text(values, library="pandas"):
    """A frame of a column and a text, which makes it a table."""
    if library == "polars":
        return pl.DataFrame({"": values, "text": ["t"] * len(values)})
    frame = pd.DataFrame({"text": ["t"] * len(values)})
    frame.insert(0, "", values)
    return frame


def there_and_back(X, **params):
    table = learn(X, **params)
    return table.rows(table.numbers(X), getattr(X, "index", None))


DAYS = pd.to_datetime(["2020-01-01", "1900-02-28", "2261-12-31", "1678-01-01"])
TIMES = pd.to_datetime(
    [
        "2020-01-01T12:00:00.000001",
        "2020-06-30T01:02:03.5",
        "1950-05-05T00:00:00",
        "2020-10-25T00:30",
    ],
    format="ISO8601",
)
SPANS = pd.to_timedelta([1, 36_000, -90, 86_400 * 400], unit="s")


def arrow(values, kind):
    return pd.Series(pd.arrays.ArrowExtensionArray(pa.chunked_array([pa.array(values, kind)])))


PANDAS_COLUMNS = [
    pd.Series(["b", "a", "b", "c"]),
    pd.Series(["b", "a", "b", "c"], dtype=object),
    pd.Series(["b", "a", "b", "c"], dtype="string"),
    pd.Series(["b", "a", "b", "c"], dtype="string[python]"),
    pd.Series(["b", "a", "b", "c"], dtype="string[pyarrow]"),
    pd.Series(pd.Categorical(["b", "a", "b", "c"], categories=["c", "b", "unused", "a"])),
    pd.Series(pd.Categorical(["b", "a", "b", "c"], categories=["c", "b", "a"], ordered=True)),
    pd.Series(pd.Categorical([3, 1, 3, 7])),
    pd.Series(pd.Categorical([0.5, -1, 0.5, 7])),
    pd.Series(pd.Categorical([True, False, True, True])),
    pd.Series(pd.Categorical(DAYS)),
    pd.Series(pd.cut([1, 5, 9, 1], 3)),
    pd.Series([True, False, True, True]),
    pd.Series([True, False, True, True], dtype="boolean"),
    pd.Series([True, False, True, True], dtype=object),
    pd.Series([1, 2, 3, -4], dtype="int8"),
    pd.Series([1, 2, 3, 2**63], dtype="uint64"),
    pd.Series([1, 2, 3, -(10**12)], dtype="int64"),
    pd.Series([1, 2, 3, -4], dtype="Int64"),
    pd.Series([1, 2, 3, 4], dtype="UInt8"),
    pd.Series([1, 2, 3, -4], dtype=object),
    pd.Series([1.5, 2, 3, -4], dtype="float32"),
    pd.Series([1.5, 2, 3, -4], dtype="Float32"),
    pd.Series([1.5, 2, 3, -4], dtype="float64"),
    pd.Series([1.5, 2, 3, -4], dtype=object),
    pd.Series(pd.arrays.SparseArray([0, 2, 0, 0])),
    pd.Series(DAYS),
    pd.Series(DAYS).astype("datetime64[s]"),
    pd.Series(DAYS).astype("datetime64[ns]"),
    pd.Series(DAYS.tz_localize("UTC")).astype("datetime64[ns, UTC]"),
    pd.Series(TIMES),
    pd.Series(TIMES.tz_localize("America/New_York")),
    pd.Series(pd.to_datetime(["2020-01-01T12:00+01:00"] * 4)),
    pd.Series(SPANS),
    pd.Series(SPANS).astype("timedelta64[ns]"),
    pd.Series([dt.date(2020, 1, 1), dt.date(1, 1, 1), dt.date(9999, 12, 31), dt.date(1970, 1, 1)]),
    pd.Series([*map(pd.Timestamp.to_pydatetime, TIMES)], dtype=object),
    pd.Series([*map(pd.Timestamp.to_pydatetime, TIMES.tz_localize("UTC"))], dtype=object),
    pd.Series([*map(pd.Timedelta.to_pytimedelta, SPANS)], dtype=object),
    arrow(["b", "a", "b", "c"], pa.string()),
    arrow(["b", "a", "b", "c"], pa.large_string()),
    arrow(["b", "a", "b", "c"], pa.dictionary(pa.int8(), pa.string())),
    arrow([True, False, True, True], pa.bool_()),
    arrow([1, 2, 3, -4], pa.int16()),
    arrow([1.5, 2, 3, -4], pa.float32()),
    arrow([1.5, 2, 3, -4], pa.float64()),
    arrow(DAYS.to_pydatetime(), pa.date32()),
    arrow(DAYS.to_pydatetime(), pa.date64()),
    arrow(TIMES.to_pydatetime(), pa.timestamp("us")),
    arrow(DAYS.to_pydatetime(), pa.timestamp("ns", "UTC")),
    arrow(TIMES.to_pydatetime(), pa.timestamp("us", "Europe/Berlin")),
    arrow(SPANS.to_pytimedelta(), pa.duration("ms")),
]

POLARS_COLUMNS = [
    pl.Series(["b", "a", "b", "c"]),
    pl.Series(["b", "a", "b", "c"], dtype=pl.Categorical),
    pl.Series(["b", "a", "b", "c"], dtype=pl.Enum(["c", "b", "unused", "a"])),
    pl.Series([True, False, True, True]),
    pl.Series([1, 2, 3, -4], dtype=pl.Int8),
    pl.Series([1, 2, 3, 4], dtype=pl.UInt32),
    pl.Series([1, 2, 3, -(10**12)]),
    pl.Series([1.5, 2, 3, -4], dtype=pl.Float32),
    pl.Series([1.5, 2, 3, -4]),
    pl.Series(DAYS.to_pydatetime().tolist(), dtype=pl.Date),
    pl.Series(TIMES.to_pydatetime().tolist()),
    pl.Series(DAYS.to_pydatetime().tolist(), dtype=pl.Datetime("ns")),
    pl.Series(TIMES.to_pydatetime().tolist(), dtype=pl.Datetime("us", "Europe/Berlin")),
    pl.Series(SPANS.to_pytimedelta().tolist()),
    pl.Series(SPANS.to_pytimedelta().tolist(), dtype=pl.Duration("ms")),
]


def name_of(column):
    return f"{column.dtype}-{column[0]}"


@pytest.mark.parametrize("column", PANDAS_COLUMNS, ids=name_of)
def test_columns_of_pandas_come_back(column):
    X = with_text(column).set_axis([7, 7, 3, 5])
    pd.testing.assert_frame_equal(there_and_back(X), X)


@pytest.mark.parametrize("column", POLARS_COLUMNS, ids=name_of)
def test_columns_of_polars_come_back(column):
    X = with_text(column, "polars")
    assert there_and_back(X).equals(X)
    assert there_and_back(X).schema == X.schema


# A type of NumPy without missing values cannot be taken.
WITH_GAPS = [
    column
    for column in PANDAS_COLUMNS
    if str(column.dtype) not in ("bool", "int8", "uint64", "int64", "Sparse[int64, 0]")
]


@pytest.mark.parametrize("column", WITH_GAPS, ids=name_of)
def test_missing_values_of_pandas_are_nan(column):
    column = column.copy()
    column[1] = None
    X = with_text(column)
    table = learn(X)
    assert np.isnan(table.numbers(X)).tolist() == [[i == 1, False] for i in range(4)]
    if table.columns[0].levels is not None:
        assert len(table.columns[0].levels.all) == 2 or column.dtype == "category"
    pd.testing.assert_frame_equal(table.rows(table.numbers(X)), X)


@pytest.mark.parametrize("column", POLARS_COLUMNS, ids=name_of)
def test_missing_values_of_polars_are_nan(column):
    X = with_text(
        pl.concat([column[:1], pl.Series([None], dtype=column.dtype), column[2:]]), "polars"
    )
    table = learn(X)
    assert np.isnan(table.numbers(X)).tolist() == [[i == 1, False] for i in range(4)]
    back = table.rows(table.numbers(X))
    assert back.schema == X.schema
    assert back[2:].to_dicts() == X[2:].to_dicts()


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["a", None, np.nan, pd.NA], "category"),
        ([True, None, False, np.nan], "boolean"),
        ([1, None, 2, pd.NA], "integer"),
        ([1, None, 2.5, Decimal("NaN")], "number"),
        ([dt.date(2020, 1, 1), None, pd.NaT, np.nan], "date"),
        ([dt.datetime(2020, 1, 1), None, pd.NaT, pd.Timestamp(0)], "date"),
        ([dt.timedelta(1), None, pd.NaT, np.nan], "duration"),
    ],
)
def test_objects(values, kind):
    X = with_text(pd.Series(values, dtype=object))
    column = learn(X).columns[0]
    assert column.kind == kind
    known = there_and_back(X)[""]
    assert [v for v in known if not pd.isna(v)] == [v for v in values if not pd.isna(v)]


def test_numbers_are_floats_as_wide_as_their_types():
    narrow = pd.DataFrame({"a": np.float32([1, 2]), "b": np.int16([1, 2]), "c": ["x", "y"]})
    assert learn(narrow).numbers(narrow).dtype == np.float32
    assert learn(narrow).numbers(narrow).tolist() == [[1, 1, 0], [2, 2, 1]]
    for wide in (np.int32, np.float64):
        X = narrow.astype({"b": wide})
        assert learn(X).numbers(X).dtype == np.float64


def test_dates_are_seconds_since_1970():
    for zone in ("UTC", "Asia/Tokyo"):
        X = with_text(pd.Series(pd.to_datetime(["1970-01-01T00:01"])).dt.tz_localize("UTC"))
        X[""] = X[""].dt.tz_convert(zone)
        assert learn(X).numbers(X)[0, 0] == 60
    X = with_text(pl.Series([dt.timedelta(hours=1)]), "polars")
    assert learn(X).numbers(X)[0, 0] == 3600


def test_decimals_come_back_as_floats():
    X = with_text(arrow([Decimal("1.25"), None], pa.decimal128(10, 2)))
    assert there_and_back(X)[""].tolist()[0] == 1.25
    X = with_text(pl.Series([Decimal("1.25"), None]), "polars")
    assert there_and_back(X)[""].to_list()[0] == 1.25


@pytest.mark.parametrize(
    ("values", "number"),
    [
        (pd.Series([1, 2, 3], dtype="int64"), 2),
        (pd.Series([1, 2, 3], dtype="uint8"), 2),
        (pl.Series([1, 2, 3], dtype=pl.Int32), 2),
    ],
)
def test_integers_are_rounded_and_clipped(values, number):
    X = with_text(values, "polars" if isinstance(values, pl.Series) else "pandas")
    back = learn(X).rows(np.array([[1.7, 0], [1e30, 0], [-1e30, 0]]))[""]
    assert back.dtype == values.dtype
    info = np.iinfo(str(values.dtype).lower())
    assert list(back) == [number, info.max, info.min]


def test_dates_that_cannot_be_represented_are_clipped():
    for name, first in (("ns", 1678), ("us", 1)):
        X = with_text(pd.Series(DAYS).astype(f"datetime64[{name}]"))
        back = learn(X).rows(np.array([[-1e15, 0], [1e15, 0]]))[""]
        assert back.dtype == X[""].dtype
        assert back.dt.year[0] == first
    X = with_text(pl.Series([dt.date(2020, 1, 1)]), "polars")
    assert learn(X).rows(np.array([[-1e15, 0], [1e15, 0]]))[""].dt.year().to_list() == [1, 9999]


def test_days_and_seconds_come_back_whole():
    seconds = np.array([[86_400 * 1.4, 0], [86_399.6, 0]])
    for times, expected in (
        (["2020-01-01"], ["1970-01-02T00:00:00", "1970-01-02T00:00:00"]),
        (["2020-01-01T00:00:01"], ["1970-01-02T09:36:00", "1970-01-02T00:00:00"]),
        (["2020-01-01T00:00:01.5"], ["1970-01-02T09:36:00", "1970-01-01T23:59:59.6"]),
    ):
        table = learn(with_text(pd.Series(pd.to_datetime(times))))
        assert table.rows(seconds)[""].tolist() == [*map(pd.Timestamp, expected)]


def test_frames_of_numbers_and_booleans_are_no_tables():
    for X in (
        pd.DataFrame({"a": [1.5], "b": [True], "c": pd.Series([None], dtype=object)}),
        pl.DataFrame({"a": [1.5], "b": [True], "c": [None]}),
        np.zeros((2, 2)),
        np.zeros((2, 2), dtype=object),
        np.array([["a"]], dtype=object),
    ):
        assert learn(X) is None


@pytest.mark.parametrize(
    "values",
    [
        pd.Series(pd.period_range("2020", periods=2, freq="M")),
        pd.Series(pd.interval_range(0, 2)),
        pd.Series([[1], [2]]),
        pd.Series([1j, 2j]),
        arrow([dt.time(1), None], pa.time64("us")),
        arrow([[1], [2]], pa.list_(pa.int64())),
        pl.Series([dt.time(1), None]),
        pl.Series([[1], [2]]),
        pl.Series([{"a": 1}, None]),
        pl.Series([b"a", None]),
    ],
    ids=name_of,
)
def test_columns_of_other_types_are_refused(values):
    X = with_text(values, "polars" if isinstance(values, pl.Series) else "pandas")
    with pytest.raises(ValueError, match=r"X must hold numbers, but these columns do not: '' \("):
        learn(X)


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        (["a", 1, None], r"'a' \(str\) and 1 \(int\)"),
        ([1.5, True, "a"], r"1.5 \(float\) and 'a' \(str\)"),
        (
            [dt.date(2020, 1, 1), "a", 1],
            r"datetime.date\(2020, 1, 1\) \(date\) and 'a' \(str\) and 1",
        ),
        ([dt.timedelta(1), dt.date(2020, 1, 1)], r".* \(timedelta\) and .* \(date\)"),
    ],
)
def test_objects_of_several_types_are_refused(values, shown):
    X = with_text(pd.Series(values, dtype=object))
    with pytest.raises(
        ValueError, match=f"Column '' holds values of several types, such as {shown}"
    ):
        learn(X)
    with pytest.raises(
        ValueError, match=f"Column '' holds values of several types, such as {shown}"
    ):
        learn(X, [0, 1])
    with pytest.raises(ValueError, match=r"these columns do not: '' \(object\)\. Encode"):
        learn(X, ["text"])


def test_unhashable_levels_are_refused():
    with pytest.raises(
        ValueError, match=r"Column '' \(object\) holds values that cannot be levels"
    ):
        learn(with_text(pd.Series([[1], [2]])), [0, 1])


# Levels


def test_levels_are_sorted_or_in_the_order_of_their_type():
    X = pd.DataFrame({"a": ["c", "b", "b"], "b": pd.Categorical(["c", "b", "b"], ["x", "c", "b"])})
    table = learn(X)
    assert [each.tolist() for each in table.attributes()["categories_"]] == [["b", "c"], ["c", "b"]]
    assert [each.tolist() for each in table.shares()] == [[2 / 3, 1 / 3], [1 / 3, 2 / 3]]
    assert table.numbers(X).tolist() == [[1, 0], [0, 1], [0, 1]]
    assert table.is_category.tolist() == [True, True]


def test_unseen_levels_are_missing():
    table = learn(pd.DataFrame({"a": ["x", "y"]}))
    assert np.isnan(table.numbers(pd.DataFrame({"a": ["z", "y", None]})))[:, 0].tolist() == [
        True,
        False,
        True,
    ]


@pytest.mark.parametrize(
    ("fitted", "given", "message"),
    [
        (["x", "y"], [3, 4], r"'a' had levels such as 'x' in fit, but holds values such as 3"),
        (pd.Categorical([3, 4]), ["x"], r"'a' had levels such as 3 in fit, but .* 'x'"),
        (pd.Series(pd.cut([1, 2], 2)), ["x"], r"had levels such as Interval.* 'x'"),
        (["x", "y"], pd.Series(["x", 3], dtype=object), "several types, such as 'x'"),
    ],
)
def test_levels_of_another_type_are_refused(fitted, given, message):
    with pytest.raises(ValueError, match=message):
        learn(pd.DataFrame({"a": fitted})).numbers(pd.DataFrame({"a": given}))


@pytest.mark.parametrize("given", [[4, 3, 5], [4.0, 3.0, 5.0], pd.Categorical([4, 3, 5])])
def test_numbers_may_be_levels(given):
    table = learn(pd.DataFrame({"a": pd.Categorical([3, 4])}))
    codes = table.numbers(pd.DataFrame({"a": given}))[:, 0]
    assert codes[:2].tolist() == [1, 0]
    assert np.isnan(codes[2])


@pytest.mark.parametrize(
    ("fitted", "given", "message"),
    [
        ([1.5], ["x"], "'a' held numbers in fit, but holds values such as 'x'"),
        ([1.5], ["1"], "'a' held numbers in fit, but holds values such as '1'"),
        ([1.5], pd.Categorical(["x"]), "'a' held numbers in fit, but holds values such as 'x'"),
        ([1], DAYS[:1], "'a' held numbers in fit, but holds values such as"),
        (DAYS[:1], ["2020-01-01"], "'a' held dates in fit, .* Convert it to dates"),
        (DAYS[:1], [5], "'a' held dates in fit, but holds values such as 5"),
        (SPANS[:1], DAYS[:1], "'a' held durations in fit"),
        (DAYS[:1], DAYS[:1].tz_localize("UTC"), "dates with no time zone in fit, but .* is UTC"),
        (DAYS[:1].tz_localize("UTC"), DAYS[:1], "dates with a time zone in fit, but .* is none"),
        (
            DAYS[:1],
            pd.Series([dt.datetime(2020, 1, 1, tzinfo=dt.UTC)], dtype=object),
            "no time zone in fit",
        ),
        (
            DAYS[:1],
            pd.Series(
                [dt.datetime(2020, 1, 1, tzinfo=dt.UTC), dt.datetime(2020, 1, 1)], dtype=object
            ),
            "Column 'a': some dates have a time zone, and others have none",
        ),
    ],
)
def test_columns_of_another_kind_are_refused(fitted, given, message):
    X = pd.DataFrame({"a": fitted, "b": "x"})
    X_new = pd.DataFrame({"a": given, "b": "x"})
    with pytest.raises(ValueError, match=message):
        learn(X).numbers(X_new)


@pytest.mark.parametrize(
    "fitted", [[1.5], [True], DAYS[:1], SPANS[:1], ["x"], DAYS[:1].tz_localize("UTC")]
)
@pytest.mark.parametrize("given", [[None], [np.nan], [pd.NaT], pd.Categorical([None])])
def test_a_column_may_be_missing_in_any_type(fitted, given):
    X = pd.DataFrame({"a": fitted, "b": "x"})
    assert np.isnan(learn(X).numbers(pd.DataFrame({"a": given, "b": "x"}))[0, 0])


def test_dates_of_another_zone_type_or_library():
    instant = pd.Timestamp("2020-01-01T12:00", tz="UTC")
    X = pd.DataFrame({"a": pd.Series([instant]), "b": "x"})
    table = learn(X)
    expected = table.numbers(X).tolist()
    assert table.numbers(X.assign(a=X["a"].dt.tz_convert("Asia/Tokyo"))).tolist() == expected
    assert table.numbers(
        X.assign(a=pd.Series([instant.to_pydatetime()], dtype=object))
    ).tolist() == (expected)
    in_polars = pl.DataFrame({"a": [instant.to_pydatetime()], "b": ["x"]})
    assert table.numbers(in_polars).tolist() == expected
    assert table.numbers(X.to_numpy()).tolist() == expected


def test_far_dates_do_not_overflow():
    far = np.array(["30000-01-01"], "M8[s]")
    X = pd.DataFrame({"a": pd.Series(far), "b": "x"})
    assert learn(X).numbers(X)[0, 0] == far.astype(np.int64)[0]
    assert there_and_back(X)["a"].dt.year[0] == 9999


@pytest.mark.parametrize(
    "values",
    [
        pd.Series([None, None], dtype="string"),
        pd.Series(pd.Categorical([None, None], ["x", "y"])),
        pd.Series(pd.Categorical([None, None])),
        pd.Series([None, None], dtype=object),
        pd.Series([np.nan, np.nan]),
        pd.Series([pd.NaT, pd.NaT]),
        pd.Series([None, None], dtype="Int64"),
        pd.Series([None, None], dtype="boolean"),
        pl.Series([None, None]),
        pl.Series([None, None], dtype=pl.String),
        pl.Series([None, None], dtype=pl.Boolean),
        pl.Series([None, None], dtype=pl.Int8),
    ],
    ids=name_of,
)
def test_columns_without_known_values(values):
    X = with_text(values, "polars" if isinstance(values, pl.Series) else "pandas")
    table = learn(X)
    assert np.isnan(table.numbers(X)[:, 0]).all()
    back = table.rows(table.numbers(X))
    assert back[""].dtype == values.dtype
    known = back[""].count()
    assert known == 0


def random_levels(rng):
    n_levels = rng.integers(2, 12)
    shares = rng.dirichlet(np.full(n_levels, 0.7))
    return np.array([f"l{i:02}" for i in range(n_levels)], dtype=object)[
        rng.choice(n_levels, 80, p=shares)
    ]


@pytest.mark.parametrize("min_frequency", [None, 1, 5, 20, 0.05, 0.3])
@pytest.mark.parametrize("max_categories", [None, 1, 2, 4, 6])
def test_levels_are_grouped_as_by_one_hot_encoder(min_frequency, max_categories):
    rng = np.random.default_rng(0)
    X = pd.DataFrame({f"c{i}": random_levels(rng) for i in range(12)})
    table = learn(X, min_frequency=min_frequency, max_categories=max_categories)
    peer = OneHotEncoder(min_frequency=min_frequency, max_categories=max_categories).fit(X)
    grouped = getattr(peer, "infrequent_categories_", [None] * 12)
    for own, other in zip(table.attributes()["infrequent_categories_"], grouped, strict=True):
        # A group of one level is that level.
        assert (None if own is None else own.tolist()) == (
            None if other is None or len(other) == 1 else other.tolist()
        )
    for column, own in zip(
        table.columns, table.attributes()["infrequent_categories_"], strict=True
    ):
        assert column.levels.n_codes == len(column.levels.all) - (
            0 if own is None else len(own) - 1
        )


def test_grouped_levels_come_back_as_the_commonest_or_by_their_shares():
    X = pd.DataFrame({"a": ["w"] * 50 + ["x"] * 10 + ["y"] * 30 + ["z"] * 60})
    table = learn(X, max_categories=2)
    assert table.columns[0].levels.names() == ["z", "infrequent_sklearn"]
    assert table.attributes()["infrequent_categories_"][0].tolist() == ["w", "x", "y"]
    numbers = table.numbers(X)
    assert table.rows(numbers)["a"].value_counts().to_dict() == {"w": 90, "z": 60}
    drawn = table.rows(np.ones((9000, 1)), rng=np.random.RandomState(0))["a"]
    shares = drawn.value_counts(normalize=True).to_dict()
    assert shares == pytest.approx({"w": 5 / 9, "x": 1 / 9, "y": 3 / 9}, abs=0.02)


def test_many_levels_are_named_in_one_warning():
    names = pd.DataFrame({"id": [f"n{i}" for i in range(200)]})
    with pytest.warns(UserWarning, match="'id' has 200 levels") as caught:
        table = learn(names)
    assert [str(each.message) for each in caught] == [
        "Column 'id' has 200 levels in 200 rows. If it is an identifier, leave it out of X."
    ]
    assert table.columns[0].levels.n_codes == 50
    words = pd.concat([names] * 3)
    with pytest.warns(
        UserWarning, match=r"'id' has 200 levels: the 49 most frequent ones are kept"
    ):
        learn(words)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert learn(words, max_categories=300).columns[0].levels.n_codes == 200
        assert learn(words, max_categories=None).columns[0].levels.n_codes == 200
        assert learn(words[:20]).columns[0].levels.n_codes == 20


# Ranks


class Gathered(Ranks):
    """A rank that is told the other rank's values, one after the other."""

    size = 2

    def __init__(self, others=()):
        self.own, self._others = [], list(others)

    def gather(self, value):
        self.own.append(copy.deepcopy(value))
        return [value, self._others.pop(0) if self._others else copy.deepcopy(value)]


def test_levels_of_all_ranks_are_joined():
    first = pd.DataFrame({"a": ["x", "z"], "b": pd.Categorical([1, 2], [2, 1]), "c": [None, "t"]})
    second = pd.DataFrame({"a": ["y"], "b": pd.Categorical([3], [2, 3]), "c": [None]}).astype(
        {"c": "string"}
    )
    alone = Gathered()
    learn(second, ranks=alone)
    table = learn(first, ranks=Gathered(alone.own))
    assert [each.tolist() for each in table.attributes()["categories_"]] == [
        ["x", "y", "z"],
        [2, 1, 3],
        ["t"],
    ]
    assert [each.levels.counts.tolist() for each in table.columns] == [[1, 1, 1], [1, 1, 1], [1]]


@pytest.mark.parametrize(
    ("values", "others", "kind", "dtype"),
    [
        (pd.Series([None, None]), pd.Series(["x", "y"], dtype="string"), "category", "string"),
        (pd.Series(["x"], dtype=object), pd.Series([None]), "category", "object"),
        (pd.Series([1, 2]), pd.Series([1.5, None]), "number", "float64"),
        (pd.Series([1.5, None]), pd.Series([1, 2]), "number", "float64"),
        (pd.Series([None]), pd.Series([1, 2]), "integer", "int64"),
        (pd.Series([None]), pd.Series([None]), "number", "object"),
        (pd.Series([None]), DAYS[:3], "date", "datetime64"),
    ],
)
def test_kinds_of_parts_are_joined(values, others, kind, dtype):
    parts = [pd.DataFrame({"letter": ["a"] * len(each), "it": each}) for each in (values, others)]
    survey, other = (TableSurvey.of(part, "from_dtype") for part in parts)
    survey.join(other)
    column = survey.table(None, "auto").columns[1]
    assert column.kind == kind
    assert column.dtype.startswith(dtype)
    assert survey.n_rows == len(values) + len(others)


@pytest.mark.parametrize(
    ("values", "others", "message"),
    [
        (["x"], [1], r"kinds \['category', 'integer'\]: 'it'"),
        ([True], [1.5], r"kinds \['boolean', 'number'\]: 'it'"),
        (DAYS[:2], ["x"], r"kinds \['category', 'date'\]: 'it'"),
    ],
)
def test_parts_of_different_kinds_are_refused(values, others, message):
    survey, other = (
        TableSurvey.of(pd.DataFrame({"it": each}), "from_dtype") for each in (values, others)
    )
    with pytest.raises(ValueError, match=message):
        survey.join(other)


def test_parts_of_different_widths_are_refused():
    survey, other = (TableSurvey.of(FRAME[names], "from_dtype") for names in (["a", "b"], ["a"]))
    with pytest.raises(ValueError, match="rows with 2 and with 1 columns"):
        survey.join(other)


# The parameter


FRAME = pd.DataFrame({"a": ["x", "y", "x"], "b": [3, 4, 3], "c": [0.5, 1, 2]})


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ("from_dtype", [True, False, False]),
        ([0, 1], [True, True, False]),
        (np.array([0, 2]), [True, False, True]),
        (["a", "b"], [True, True, False]),
        (pd.Index(["a"]), [True, False, False]),
        ([True, False, True], [True, False, True]),
        (np.array([True, True, False]), [True, True, False]),
    ],
)
def test_categorical_features(chosen, expected):
    for X in (FRAME, pl.from_pandas(FRAME)):
        table = learn(X, chosen)
        assert table.is_category.tolist() == expected
        back = table.rows(table.numbers(X))
        assert back.equals(X)


def test_categorical_features_of_arrays():
    X = FRAME.to_numpy()
    table = learn(X, [0, 1])
    assert table.is_category.tolist() == [True, True, False]
    assert there_and_back(X, chosen=[0, 1]).tolist() == X.tolist()
    numbers = np.array([[5, 1], [7, 2], [5, 3]])
    back = there_and_back(numbers, chosen=[True, False])
    assert back.dtype == numbers.dtype
    assert back.tolist() == numbers.tolist()
    with pytest.raises(ValueError, match=r"these columns do not: 'x0' \(object\)"):
        learn(X, [1])


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ("from_type", "must be 'from_dtype', None, or the names, positions or a mask"),
        (["a", "z"], r"names that are not in X: \['z'\]"),
        ([3], "must be integers from 0 to 2, got"),
        ([-1], "must be integers from 0 to 2, got"),
        ([0.5], "must be integers from 0 to 2, got"),
        ([True, False], r"as a mask must have shape \(3,\), got \(2,\)"),
        ([[0]], r"must be a list of columns, got \[\[0\]\]"),
        (0, "must be a list of columns, got 0"),
    ],
)
def test_wrong_categorical_features(chosen, message):
    with pytest.raises(ValueError, match=message):
        learn(FRAME, chosen)


def test_names_need_a_frame():
    with pytest.raises(ValueError, match="has names, but X has no column names"):
        learn(FRAME.to_numpy(), ["a"])


@pytest.mark.parametrize("chosen", [None, ["b"], []])
def test_text_that_is_not_chosen_is_refused(chosen):
    X = FRAME.assign(d=DAYS[:3], e=pd.Categorical([1, 2, 2]))
    with pytest.raises(ValueError, match=r"do not: 'a' \((str|object)\)\. Encode them first"):
        learn(X, chosen)
    table = learn(X.drop(columns="a"), chosen)
    assert [column.kind for column in table.columns][-3:] == ["number", "date", "number"]
    assert table.numbers(X.drop(columns="a"))[:, -1].tolist() == [1, 2, 2]
    assert table.rows(table.numbers(X.drop(columns="a")))["e"].tolist() == [1, 2, 2]


def test_repeated_empty_and_other_column_names():
    X = pd.DataFrame([["x", 1, "y"], ["y", 2, "z"]])
    for names in (["a", "a", ""], [2, 1, 0], range(3)):
        X.columns = names
        pd.testing.assert_frame_equal(there_and_back(X), X)
    X = X.drop(columns=2).set_axis(["a", "a"], axis=1)
    assert learn(X, ["a"]).is_category.tolist() == [True, True]


def test_probabilities_have_a_column_for_each_level():
    X = pd.DataFrame({"n": [1, 2], "a": ["x", "y"], "d": DAYS[:2], "e": [None, None], "b": [5, 5]})
    X = X.astype({"e": "string"}).set_axis([4, 9])
    table = learn(X, ["a", "e", "b"])
    found = table.probabilities(np.array([[1.2, 0.25, 0.75, 86_400, 1.0]] * 2), X.index)
    assert found.columns.tolist() == ["n", "a_x", "a_y", "d", "b_5"]
    assert found.loc[9].tolist() == [1, 0.25, 0.75, pd.Timestamp("1970-01-02"), 1.0]
