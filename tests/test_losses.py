import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn import metrics

from aefeatures import AutoencoderTransformer
from aefeatures._nets.losses import (
    LOSSES,
    TableGradient,
    TableLoss,
    leave_out_missing,
    resolve_loss,
)
from aefeatures._rows.scaling import Scaling
from aefeatures._rows.table_scaling import TableScaling

pytestmark = pytest.mark.filterwarnings("ignore:.*learned nothing")


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(5, 4, generator=generator), torch.rand(5, 4, generator=generator)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_losses_give_one_number_per_row(pair, name):
    rows = resolve_loss(name)(*pair)
    assert rows.shape == (5,)
    alone = torch.stack(
        [resolve_loss(name)(r[None], t[None])[0] for r, t in zip(*pair, strict=True)]
    )
    torch.testing.assert_close(rows, alone)


@pytest.mark.parametrize(
    ("name", "metric"),
    [("mse", metrics.mean_squared_error), ("mae", metrics.mean_absolute_error)],
)
def test_losses_agree_with_scikit_learn(pair, name, metric):
    reconstruction, target = pair
    assert resolve_loss(name)(*pair).mean() == pytest.approx(metric(target, reconstruction))


def test_cross_entropy_of_rows_outside_the_range(pair):
    reconstruction, target = pair
    inside, far, farther = (LOSSES["bce"](reconstruction, target + d) for d in (0, 2, 3))
    torch.testing.assert_close(
        inside, torch.nn.functional.binary_cross_entropy(*pair, reduction="none").mean(dim=1)
    )
    torch.testing.assert_close(farther - far, torch.ones(5))


def test_callable_loss_must_give_one_number_per_row(pair):
    with pytest.raises(ValueError, match=r"expected \(5,\), got \(\)"):
        resolve_loss(lambda r, t: (r - t).abs().mean())(*pair)
    with pytest.raises(ValueError, match=r"expected \(5,\), got float"):
        resolve_loss(lambda r, t: 1.0)(*pair)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_missing_values_are_left_out(pair, name):
    reconstruction, target = pair[0].clone().requires_grad_(), pair[1].clone()
    target[0, 2] = target[1, :] = float("nan")
    rows = leave_out_missing(LOSSES[name])(reconstruction, target)
    there = [0, 1, 3]
    expected = LOSSES[name](reconstruction[:1, there], target[:1, there])
    torch.testing.assert_close(rows[:1], expected)
    assert abs(float(rows[1].detach())) < 1e-6
    torch.testing.assert_close(rows[2:], LOSSES[name](reconstruction[2:], target[2:]))
    rows.sum().backward()
    assert torch.isfinite(reconstruction.grad).all()
    assert (reconstruction.grad[0, 2], reconstruction.grad[1].abs().max()) == (0, 0)


@pytest.mark.parametrize("missing", [False, True])
def test_losses_of_ones_own_may_work_in_place(missing):
    X = np.random.default_rng(0).random((50, 6))
    if missing:
        X[::3, 1] = np.nan
    before = X.copy()

    def in_place(reconstruction, target):
        return target.mul_(-1).add_(reconstruction.mul_(1)).square_().mean(dim=1)

    def not_in_place(reconstruction, target):
        return (target * -1 + reconstruction * 1).square().mean(dim=1)

    transformers = [
        AutoencoderTransformer(2, loss=loss, scaling=None, max_epochs=3, random_state=0).fit(X)
        for loss in (in_place, not_in_place)
    ]
    scores = [transformer.score_samples(X) for transformer in transformers]
    np.testing.assert_array_equal(X, before)
    np.testing.assert_array_equal(*scores)
    assert transformers[0].loss_curve_ == transformers[1].loss_curve_


@pytest.mark.parametrize("loss", [torch.nn.MSELoss, torch.nn.L1Loss])
def test_a_class_as_loss_is_refused(loss):
    with pytest.raises(
        TypeError, match=rf"got the class {loss.__name__}\. For a loss of PyTorch, pass"
    ):
        resolve_loss(loss)


@pytest.mark.parametrize(
    ("loss", "got"),
    [(torch.nn.MSELoss(), r"\(\)"), (torch.nn.L1Loss(reduction="none"), r"\(5, 4\)")],
)
def test_modules_that_give_no_number_per_row_are_told_how(pair, loss, got):
    with pytest.raises(ValueError, match=rf"got {got}\. For .*: lambda r, t: F.mse_loss"):
        resolve_loss(loss)(*pair)


# Missing values under losses of the caller's own


def gamma(reconstruction, target):
    """With the logarithm of the mean."""
    return reconstruction + target * torch.exp(-reconstruction)


ENTRIES = {
    "cross-entropy of logits": lambda r, t: F.binary_cross_entropy_with_logits(
        r, t, reduction="none"
    ),
    "Poisson": lambda r, t: F.poisson_nll_loss(r, t, reduction="none"),
    "gamma": gamma,
    "pinball": lambda r, t: torch.maximum(0.9 * (t - r), -0.1 * (t - r)),
    "squared": lambda r, t: (r - t) ** 2,
    "below zero": lambda r, t: (r - t) ** 2 - 5,
    "zero nearby": lambda r, t: F.relu((r - t).abs() - 2),
    "zeros for NaN": lambda r, t: (r - t.nan_to_num()) ** 2,
}


@pytest.fixture
def missing():
    """A reconstruction, a target that misses values, and which entries are known."""
    generator = torch.Generator().manual_seed(0)
    reconstruction = 3 * torch.randn(6, 5, generator=generator)
    target = (torch.rand(6, 5, generator=generator) < 0.5).float()
    known = torch.rand(6, 5, generator=generator) < 0.6
    known[:, 0] = True
    known[5] = True
    return reconstruction.requires_grad_(), target.masked_fill(~known, torch.nan), known


def assert_known_alone(loss, missing, expected):
    """Values are `expected`, gradients theirs, and none where nothing is known."""
    reconstruction, target, known = missing
    rows = leave_out_missing(resolve_loss(loss))(reconstruction, target)
    expected = torch.stack(
        [expected(r[k], t[k], k) for r, t, k in zip(reconstruction, target, known, strict=True)]
    )
    torch.testing.assert_close(rows, expected, rtol=1e-4, atol=1e-5)
    (gradient,) = torch.autograd.grad(rows.sum(), reconstruction)
    (theirs,) = torch.autograd.grad(expected.sum(), reconstruction)
    assert (gradient[~known] == 0).all()
    torch.testing.assert_close(gradient, theirs, rtol=1e-4, atol=1e-5)
    with torch.inference_mode():  # as in score_samples
        again = leave_out_missing(resolve_loss(loss))(reconstruction, target)
    torch.testing.assert_close(again, rows)


@pytest.mark.parametrize("reduce", ["sum", "mean"])
@pytest.mark.parametrize("name", ENTRIES)
def test_missing_values_are_left_out_of_sums_and_means(missing, name, reduce):
    entry = ENTRIES[name]
    assert_known_alone(
        lambda r, t: getattr(entry(r, t), reduce)(dim=1),
        missing,
        lambda r, t, known: getattr(entry(r, t), reduce)(),
    )


@pytest.mark.parametrize(
    "name", ["squared", "cross-entropy of logits", "Poisson", "gamma", "below zero"]
)
def test_missing_values_are_left_out_of_weighted_means(missing, name):
    entry, weights = ENTRIES[name], torch.tensor([0.1, 2.0, 0.0, 5.0, 1.0])
    assert_known_alone(
        lambda r, t: (weights * entry(r, t)).mean(dim=1),
        missing,
        lambda r, t, known: (weights[known] * entry(r, t)).mean(),
    )


def test_missing_values_are_left_out_where_columns_have_losses_of_their_own(missing):
    pinball = ENTRIES["pinball"]

    def loss(r, t):
        squares = (r - t)[:, :2].square()
        return torch.cat([squares, pinball(r[:, 2:], t[:, 2:])], dim=1).mean(dim=1)

    def expected(r, t, known):
        squared = torch.arange(5)[known] < 2
        return torch.where(squared, (r - t).square(), pinball(r, t)).mean()

    assert_known_alone(loss, missing, expected)


def root(reconstruction, target):
    """A root of a mean is neither a sum nor a mean."""
    known = ~target.isnan()
    squares = (reconstruction - torch.where(known, target, 0.0)).square() * known
    return (squares.sum(dim=1) / known.sum(dim=1)).sqrt()


def test_a_loss_may_leave_out_missing_values_itself(missing):
    assert_known_alone(root, missing, lambda r, t, known: (r - t).square().mean().sqrt())
    reconstruction, target, _ = missing
    target[2] = torch.nan
    rows = leave_out_missing(resolve_loss(root))(reconstruction, target)
    rows.sum().backward()
    assert rows[2] == 0
    assert reconstruction.grad.isfinite().all()


@pytest.mark.parametrize(
    "loss",
    [
        lambda r, t: (r - t).square().mean(dim=1).sqrt(),
        lambda r, t: 1 - F.cosine_similarity(r, t, dim=1),
        lambda r, t: (r - t).diff(dim=1).abs().mean(dim=1),
        # What each column adds at the same values cannot be told.
        lambda r, t: torch.cat(
            [F.softplus(r[:, :2]) - r[:, :2] * t[:, :2], (r - t)[:, 2:].square()], dim=1
        ).mean(dim=1),
    ],
    ids=["root", "cosine", "differences", "two kinds"],
)
def test_losses_that_missing_values_cannot_be_left_out_of_are_refused(missing, loss):
    reconstruction, target, _ = missing
    left_out = leave_out_missing(resolve_loss(loss))
    with pytest.raises(ValueError, match=r"X has missing values, .* as in: known = ~target"):
        left_out(reconstruction, target)
    complete = target.nan_to_num(0.5)
    assert torch.equal(left_out(reconstruction, complete), loss(reconstruction, complete))

    def broken(r, t):
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):  # no riddle
        leave_out_missing(broken)(reconstruction, target)


# Tables

SHARES = {
    "two": np.array([0.5, 0.5]),
    "three": np.array([0.6, 0.3, 0.1]),
    "one": np.ones(1),
    "none": np.empty(0),
}
TABLES = [
    ["two", None, "three", None],
    ["two", "three"],
    [None, None, None],
    ["one", None, "two"],
    ["none", "three", None],
    ["one"],
]


def table_of(shares, n=4000, seed=0):
    """A scaling, and rows in the network's range of which no value is missing."""
    rng = np.random.default_rng(seed)
    shares = [None if each is None else SHARES[each] for each in shares]
    n_numbers = sum(share is None for share in shares)
    ones, zeros = np.ones(n_numbers), np.zeros(n_numbers)
    numbers = Scaling(zeros, ones, bounded=False, center=zeros, spread=ones)
    columns = [
        rng.standard_normal(n)
        if share is None
        else np.full(n, np.nan)
        if len(share) == 0
        else rng.choice(len(share), n, p=share)
        for share in shares
    ]
    scaling = TableScaling(numbers, shares)
    return scaling, scaling(torch.from_numpy(np.array(columns, float).T))


@pytest.mark.parametrize("size", [1.0, 100.0])
@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize("shares", TABLES)
def test_written_gradient_of_tables_is_that_of_autograd(shares, gaps, size):
    scaling, target = table_of(shares, 50)
    loss = TableLoss(LOSSES["mse"], scaling)
    if gaps:
        missing = torch.rand(50, len(shares), generator=torch.Generator().manual_seed(1)) < 0.3
        missing[0] = True
        target[missing[:, scaling.column_of_output]] = torch.nan
        loss = leave_out_missing(loss)
    reconstruction = torch.randn(target.shape, generator=torch.Generator().manual_seed(0)).double()
    reconstruction *= size
    gradient = torch.empty_like(target)
    summed = TableGradient(loss, target)(reconstruction, target, gradient)
    rows = loss(reconstruction.requires_grad_(), target)
    torch.testing.assert_close(summed, rows.sum().detach())
    (expected,) = torch.autograd.grad(rows.mean(), reconstruction)
    torch.testing.assert_close(gradient, expected)
    assert scaling.share.device.type == "cpu"


@pytest.mark.parametrize("shares", TABLES[:3])
def test_means_and_shares_have_a_loss_of_one(shares):
    scaling, target = table_of(shares)
    loss = TableLoss(LOSSES["mse"], scaling)
    assert float(loss(loss.constant(target), target).mean()) == pytest.approx(1, rel=0.03)
    assert float(loss(loss.perfect(target), target).mean()) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("numbers", ["mse", "mae", "huber", "own mean", "own sum"])
@pytest.mark.parametrize("shares", TABLES[:4])
def test_missing_values_of_tables_are_left_out(shares, numbers):
    own = {
        "own mean": lambda r, t: (r - t).abs().pow(1.5).mean(dim=1),
        "own sum": lambda r, t: (r - t).abs().pow(1.5).sum(dim=1),
    }
    scaling, target = table_of(shares, 40)
    loss = TableLoss(own.get(numbers) or LOSSES[numbers], scaling)
    known = leave_out_missing(loss)
    reconstruction = torch.randn(target.shape).double().requires_grad_()
    torch.testing.assert_close(known(reconstruction, target), loss(reconstruction, target))
    for column in range(scaling.n_features):
        hidden = torch.from_numpy(scaling.column_of_output == column)
        rows = known(reconstruction, target.masked_fill(hidden, torch.nan))
        (gradient,) = torch.autograd.grad(rows.sum(), reconstruction)
        assert (gradient[:, hidden] == 0).all()
        other = reconstruction.detach().masked_fill(hidden, 3.0)
        torch.testing.assert_close(
            known(other, target.masked_fill(hidden, torch.nan)), rows.detach()
        )
    all_missing = known(reconstruction, torch.full_like(target, torch.nan))
    assert all_missing.tolist() == [0.0] * 40


def test_each_column_of_a_table_counts_once():
    scaling, target = table_of(["three", None], 40)
    loss = leave_out_missing(TableLoss(LOSSES["mse"], scaling))
    reconstruction = torch.randn(target.shape).double()
    parts = []
    for column in range(2):
        hidden = torch.from_numpy(scaling.column_of_output == column)
        parts.append(loss(reconstruction, target.masked_fill(hidden, torch.nan)))
    torch.testing.assert_close(loss(reconstruction, target), (parts[0] + parts[1]) / 2)
