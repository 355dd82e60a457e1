import pytest
import torch
from sklearn import metrics

from aefeatures._losses import LOSSES, resolve_loss


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


def test_callable_loss_must_give_one_number_per_row(pair):
    with pytest.raises(ValueError, match=r"expected \(5,\), got \(\)"):
        resolve_loss(lambda r, t: (r - t).abs().mean())(*pair)
    with pytest.raises(ValueError, match=r"expected \(5,\), got float"):
        resolve_loss(lambda r, t: 1.0)(*pair)
