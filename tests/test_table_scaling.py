import numpy as np
import pytest
import torch

from aefeatures._rows.scaling import Scaling
from aefeatures._rows.survey import Survey
from aefeatures._rows.table_scaling import (
    TableScaling,
    extend_table_scaling,
    learn_table_scaling,
)

HALF, SKEW = np.array([0.5, 0.5]), np.array([0.7, 0.2, 0.1])


def scaling_of(n_numbers, *shares):
    """Numbers of mean 10 and deviation 2, then categories."""
    mean, spread = np.full(n_numbers, 10.0), np.full(n_numbers, 2.0)
    numbers = Scaling(mean, spread, bounded=False, center=mean, spread=spread)
    return TableScaling(numbers, [*[None] * n_numbers, *shares])


@pytest.fixture
def mixed():
    """A category, a number, another category, a category without levels, and a number."""
    mean, spread = np.array([10.0, 0.0]), np.array([2.0, 1.0])
    numbers = Scaling(mean, spread, bounded=False, center=mean, spread=spread)
    return TableScaling(numbers, [HALF, None, SKEW, np.empty(0), None])


ROWS = torch.tensor(
    [[0.0, 12, 2, torch.nan, 3], [torch.nan, torch.nan, torch.nan, torch.nan, 1]]
).double()


def test_numbers_come_first_then_a_column_for_each_level(mixed):
    scaled = mixed(ROWS)
    unit = [np.sqrt(0.5), np.sqrt(1 - np.square(SKEW).sum())]
    expected = [1, 3, 0.5 / unit[0], -0.5 / unit[0], *(([0, 0, 1] - SKEW) / unit[1])]
    np.testing.assert_allclose(scaled[0], expected)
    assert scaled[1].isnan().tolist() == [True, False, *[True] * 5]
    assert mixed.n_outputs == 7
    assert mixed.column_of_output.tolist() == [1, 4, 0, 0, 2, 2, 2]
    assert mixed.missing(scaled).tolist() == ROWS.isnan().tolist()
    torch.testing.assert_close(mixed.inputs(ROWS), scaled, equal_nan=True)
    torch.testing.assert_close(
        mixed.is_level(scaled[:1, 2:]), torch.tensor([[1.0, 0, 0, 0, 1]]).double()
    )


def test_inverse_gives_the_likeliest_level(mixed):
    outputs = torch.tensor([[1.0, 3, 0.1, -0.1, -4, 3, 2.9]]).double()
    assert mixed.inverse(outputs)[0, [0, 1, 2, 4]].tolist() == [0, 12, 1, 3]
    assert mixed.inverse(outputs)[0, 3].isnan()


def test_probabilities_are_in_the_order_of_columns(mixed):
    outputs = torch.tensor([[1.0, 3, 0.1, -0.1, -4, 3, 2.9]]).double()
    found = mixed.probabilities(outputs)[0]
    assert found[[2, 6]].tolist() == [12, 3]
    torch.testing.assert_close(found[:2], outputs[0, 2:4].softmax(0))
    torch.testing.assert_close(found[3:6], outputs[0, 4:].softmax(0))


@pytest.mark.parametrize("share", [HALF, SKEW, np.full(40, 1 / 40)])
def test_two_random_rows_are_as_far_apart_as_in_a_standardized_number(share):
    rng = np.random.default_rng(0)
    drawn = torch.from_numpy(rng.choice(len(share), (2, 40_000), p=share).astype(float))
    scaling = scaling_of(0, share)
    first, second = (scaling(each[:, None]) for each in drawn)
    assert float((first - second).square().sum(dim=1).mean()) == pytest.approx(2, rel=0.03)
    assert scaling.variance() * scaling.n_outputs == pytest.approx(1)
    torch.testing.assert_close(
        first.mean(dim=0), torch.zeros(len(share)).double(), atol=0.03, rtol=0
    )


def test_scores_of_categories_are_their_surprise(mixed):
    logits = torch.tensor([[1.0, 3, 0, 0, *np.log(SKEW)]]).double()
    raw = mixed.differences(mixed(ROWS[:1]), logits, raw=True)[0]
    np.testing.assert_allclose(raw[[0, 1, 2, 4]], [np.log(2), 0, -np.log(0.1), 0], atol=1e-12)
    unit = mixed.differences(mixed(ROWS[:1]), logits, raw=False)[0]
    entropy = -(SKEW * np.log(SKEW)).sum()
    np.testing.assert_allclose(unit[[0, 2]], [1, -np.log(0.1) / entropy])
    assert unit[3].isnan()


def test_a_single_level_has_no_effect():
    scaling = scaling_of(1, np.ones(1))
    rows = scaling(torch.tensor([[10.0, 0]]))
    assert rows.tolist() == [[0, 0]]
    assert scaling.inverse(torch.tensor([[0.0, -3.0]])).tolist() == [[10, 0]]
    assert scaling.differences(rows, torch.tensor([[0.0, -3.0]]), raw=False).tolist() == [[0, 0]]


@pytest.mark.parametrize("scaling", [scaling_of(2), scaling_of(0, HALF, SKEW), scaling_of(1, SKEW)])
def test_tables_of_one_kind_of_column(scaling):
    rows = torch.tensor([[10.0, 12], [12, 10]]) if scaling.n_numbers == 2 else torch.ones(2, 2)
    scaled = scaling(rows)
    assert scaled.shape == (2, scaling.n_outputs)
    torch.testing.assert_close(scaling.inverse(scaled), rows)
    assert not scaling.missing(scaled).any()


@pytest.mark.parametrize("how", ["auto", "standard", "feature", "global", None])
def test_learned_from_a_survey(how):
    X = np.array([[0, 1.0, 5], [1, np.nan, 5], [1, 3.0, 5]])
    scaling, means = learn_table_scaling(Survey.of(X), [np.array([1, 2]) / 3, None, None], how)
    assert means.tolist() == [2, 5]
    assert not scaling.bounded
    assert scaling.fixed.tolist() == [False, False, True]
    assert scaling.unknown_columns() == []
    filled = scaling.fill_values(means)
    assert filled.shape == (4,)
    assert filled[2:].tolist() == [0, 0]
    back = scaling.inverse(scaling(torch.from_numpy(X[:1])))
    np.testing.assert_allclose(back, X[:1])


def test_numbers_that_were_constant_are_learned_later():
    shares = [HALF, None]
    scaling, _ = learn_table_scaling(Survey.of(np.array([[0, 5.0], [1, 5]])), shares, "auto")
    later = Survey.of(np.array([[4.0], [8.0]]))
    extended = extend_table_scaling(scaling, later)
    assert extended is not scaling
    assert extended.fixed.tolist() == [False, False]
    assert extended.shares[0].tolist() == [0.5, 0.5]
    assert extend_table_scaling(extended, later) is extended


def test_columns_without_known_values_are_named(mixed):
    assert mixed.unknown_columns() == [3]
    assert mixed.has_unknown
