import numpy as np
import pytest
import torch
from sklearn import metrics

from aefeatures import AutoencoderTransformer
from aefeatures._losses import LOSSES, leave_out_missing, resolve_loss

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
