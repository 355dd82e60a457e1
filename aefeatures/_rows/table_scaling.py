"""Map between the numbers of a table and the network's range, where levels are columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from aefeatures._rows.scaling import Scaling, extend_scaling, learn_scaling
from aefeatures._rows.survey import Survey


class TableScaling(nn.Module):
    """Scaled numbers, then a column for each level of each category, and back.

    A level's column is ``(is_level - share) / unit``, with one unit for a category: the root of
    ``1 - sum(share**2)``. The expected squared distance of two rows in a category is then 2, as in
    a standardized number, however many levels it has. Decoders return logits of levels.

    Parameters
    ----------
    numbers : Scaling
        Of the columns that are not categorical.
    shares : sequence of (ndarray or None)
        Shares of the levels of each categorical column, and None for each other column.
    """

    number_columns: torch.Tensor
    level_column: torch.Tensor
    level_code: torch.Tensor
    share: torch.Tensor
    unit: torch.Tensor
    weight: torch.Tensor
    block: torch.Tensor
    padded: torch.Tensor
    place: torch.Tensor
    category_columns: torch.Tensor
    empty_columns: torch.Tensor
    _back: torch.Tensor

    common = False
    bounded = False

    def __init__(self, numbers: Scaling, shares: Sequence[np.ndarray | None]) -> None:
        super().__init__()
        self.numbers = numbers
        self.n_features = len(shares)
        blocks = [(i, np.asarray(share)) for i, share in enumerate(shares) if share is not None]
        full = [(i, share) for i, share in blocks if len(share)]
        sizes = [len(share) for _, share in full]
        joined = np.concatenate([np.empty(0), *(share for _, share in full)])
        spreads = [np.sqrt(max(0.0, 1 - float(np.square(share).sum()))) for _, share in full]
        entropies = [-float((share * np.log(share)).sum()) for _, share in full]
        places = np.arange(sum(sizes))
        starts = np.cumsum([0, *sizes])
        padded = np.full((len(full), max(sizes, default=1)), sum(sizes))
        for row, (start, size) in zip(padded, zip(starts, sizes, strict=False), strict=True):
            row[:size] = np.arange(start, start + size)
        buffers = {
            "number_columns": [i for i, share in enumerate(shares) if share is None],
            "category_columns": [i for i, _ in full],
            "empty_columns": [i for i, share in blocks if not len(share)],
            "level_column": np.repeat([i for i, _ in full], sizes),
            "level_code": places - np.repeat(starts[:-1], sizes),
            "block": np.repeat(np.arange(len(full)), sizes),
            "padded": padded,
            # Position of each level in `padded`, as a vector.
            "place": np.flatnonzero(padded.ravel() < sum(sizes)),
        }
        for name, values in buffers.items():
            tensor = torch.as_tensor(np.asarray(values), dtype=torch.int64)
            self.register_buffer(name, tensor, persistent=False)
        # A category of a single level has no unit.
        unit = np.repeat([each or 1.0 for each in spreads], sizes)
        weight = [1 / each if each > 0 else 0.0 for each in entropies]
        for name, numbers_ in {"share": joined, "unit": unit, "weight": weight}.items():
            tensor = torch.as_tensor(np.asarray(numbers_), dtype=torch.float64)
            self.register_buffer(name, tensor, persistent=False)
        order = np.concatenate([np.asarray(buffers[f"{kind}_columns"], int) for kind in _KINDS])
        back = torch.as_tensor(np.argsort(order), dtype=torch.int64)
        self.register_buffer("_back", back, persistent=False)

    @property
    def n_outputs(self) -> int:
        """Number of columns in the network's range."""
        return len(self.number_columns) + len(self.level_column)

    @property
    def n_numbers(self) -> int:
        """Number of columns that are not categorical."""
        return len(self.number_columns)

    @property
    def shares(self) -> list[np.ndarray | None]:
        """Shares of the levels of each column, as they were given."""
        shares: list[np.ndarray | None] = [None] * self.n_features
        for i in self.empty_columns.tolist():
            shares[i] = np.empty(0)
        for i in self.category_columns.tolist():
            shares[i] = self.share[self.level_column == i].cpu().numpy()
        return shares

    @property
    def column_of_output(self) -> np.ndarray:
        """Column of the table of each column in the network's range."""
        both: np.ndarray = torch.cat([self.number_columns, self.level_column]).cpu().numpy()
        return both

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        """Map X, of shape (n, n_features), into the network's range."""
        return torch.cat([self.numbers(self._numbers(X)), self._levels(X)], dim=1)

    def inputs(self, X: torch.Tensor) -> torch.Tensor:
        """Map X to the encoder's input in the network's range; missing values stay missing."""
        return torch.cat([self.numbers.inputs(self._numbers(X)), self._levels(X)], dim=1)

    def _numbers(self, X: torch.Tensor) -> torch.Tensor:
        return X.index_select(1, self.number_columns.to(X.device))

    def _levels(self, X: torch.Tensor) -> torch.Tensor:
        codes = X.index_select(1, self.level_column.to(X.device))
        is_level = (codes == self.level_code.to(X.device)).to(X.dtype)
        scaled = (is_level - self.share.to(X)) / self.unit.to(X)
        return torch.where(codes.isnan(), codes, scaled)

    def split(self, Y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the columns of numbers and those of levels, in the network's range."""
        return Y[:, : self.n_numbers], Y[:, self.n_numbers :]

    def targets(self, X: torch.Tensor) -> torch.Tensor:
        """Return rows in the network's range as targets of a loss."""
        numbers, levels = self.split(X)
        return torch.cat([self.numbers.targets(numbers), levels], dim=1)

    def outputs(self, X: torch.Tensor) -> torch.Tensor:
        """Return outputs of the decoder in the network's range, with constant columns set."""
        numbers, levels = self.split(X)
        return torch.cat([self.numbers.outputs(numbers), levels], dim=1)

    def inverse(self, X: torch.Tensor) -> torch.Tensor:
        """Map outputs of the decoder back to columns; a category has its likeliest level."""
        numbers, levels = self.split(X)
        # Without categories there is no level to take the largest of.
        codes = self._pad(levels).argmax(dim=2).to(X.dtype) if len(self.padded) else levels
        return self._assembled(self.numbers.inverse(numbers), codes)

    def probabilities(self, X: torch.Tensor) -> torch.Tensor:
        """Map outputs of the decoder to numbers and probabilities, in the order of columns."""
        numbers, levels = self.split(X)
        numbers = self.numbers.inverse(numbers)
        found = self.log_probabilities(levels).exp()
        return torch.cat([numbers, found], dim=1)[:, torch.as_tensor(self.order, device=X.device)]

    def scaled_probabilities(self, found: torch.Tensor) -> torch.Tensor:
        """Map the result of `probabilities` into the network's range, as `forward` maps rows."""
        back = torch.as_tensor(np.argsort(self.order), device=found.device)
        numbers, levels = self.split(found[:, back])
        scaled = (levels - self.share.to(found)) / self.unit.to(found)
        return torch.cat([self.numbers(numbers), scaled], dim=1)

    @property
    def order(self) -> np.ndarray:
        """Columns in the network's range, in the order of the table's columns."""
        return np.argsort(self.column_of_output, kind="stable")

    def expected(self, Y: torch.Tensor) -> torch.Tensor:
        """Return outputs of the decoder as expected rows in the network's range."""
        numbers, levels = self.split(Y)
        found = self.log_probabilities(levels).exp()
        return torch.cat([numbers, (found - self.share.to(found)) / self.unit.to(found)], dim=1)

    def log_probabilities(self, levels: torch.Tensor) -> torch.Tensor:
        """Return the logarithms of the probabilities that are the logits of levels."""
        padded = self._pad(levels)
        flat = torch.log_softmax(padded, dim=2).flatten(1)
        return flat.index_select(1, self.place.to(levels.device))

    def is_level(self, levels: torch.Tensor) -> torch.Tensor:
        """Return columns of levels as 0 and 1, from the network's range."""
        return levels * self.unit.to(levels) + self.share.to(levels)

    def of_blocks(self, entries: torch.Tensor) -> torch.Tensor:
        """Return sums of the entries of each category, of shape (n, n_categories)."""
        n_blocks = len(self.padded)
        sums = entries.new_zeros(entries.shape[0], n_blocks)
        return sums.index_add(1, self.block.to(entries.device), entries)

    def differences(self, X: torch.Tensor, Y: torch.Tensor, *, raw: bool) -> torch.Tensor:
        """Return how far rows are from outputs of the decoder, both in the network's range.

        A number as by `Scaling.differences`. A category by minus the logarithm of the probability
        of its level, which is divided by the column's entropy if it is not `raw`.
        """
        numbers, levels = self.split(X)
        outputs, logits = self.split(Y)
        distances = self.numbers.differences(numbers, outputs, raw=raw)
        surprise = self.surprise(levels, logits)
        if not raw:
            surprise = surprise * self.weight.to(surprise)
        return self._assembled(distances, surprise)

    def surprise(self, levels: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """Return the cross-entropy of each category, 0 if its level is missing."""
        target = self.is_level(levels).nan_to_num(nan=0.0)
        return self.of_blocks(-target * self.log_probabilities(logits))

    def missing(self, X: torch.Tensor) -> torch.Tensor:
        """Return where columns of the table are missing in rows in the network's range."""
        numbers, levels = self.split(X)
        first = self.padded[:, 0].to(X.device) if len(self.padded) else self.block[:0]
        return self._assembled(numbers, levels.index_select(1, first.to(X.device))).isnan()

    def variance(self) -> float:
        """Return the columns' mean variance in the network's range."""
        if self.numbers.spread is None:
            return 1.0
        of_numbers = (self.numbers.spread / self.numbers.scale).square().nan_to_num().sum()
        return float((of_numbers + len(self.padded)) / max(1, self.n_outputs))

    def deviations(self, *, raw: bool) -> torch.Tensor:
        """Return the standard deviations in `fit` of numbers and of levels as columns of 0 and 1.

        They are in X's units and in the order of `probabilities` if `raw`, otherwise in the
        network's range and its order.
        """
        of_levels = (self.share * (1 - self.share)).sqrt()
        if not raw:
            return torch.cat([self.numbers.deviations(raw=False), of_levels / self.unit])
        return torch.cat([self.numbers.deviations(raw=True), of_levels])[self.order]

    def effects(self, derivatives: torch.Tensor) -> torch.Tensor:
        """Return derivatives by columns in the network's range in units of their deviations.

        Columns of the table are the last axis. For a category it is the standard deviation of the
        derivatives over its levels, by their shares in `fit`: like a number's, it is how much the
        result varies, to first order, if only this column varies as in `fit`.
        """
        numbers = self.numbers.effects(derivatives[..., : self.n_numbers])
        of_levels = (derivatives[..., self.n_numbers :] / self.unit.to(derivatives)).flatten(0, -2)
        share = self.share.to(derivatives)
        means = self.of_blocks(of_levels * share)[:, self.block.to(derivatives.device)]
        variances = self.of_blocks((of_levels - means).square() * share)
        categories = variances.sqrt().view(*derivatives.shape[:-1], -1)
        joined = self._assembled(numbers.flatten(0, -2), categories.flatten(0, -2))
        return joined.view(*derivatives.shape[:-1], -1)

    @property
    def fixed(self) -> np.ndarray:
        """Mask of number columns that were constant or never known, of shape (n_features,)."""
        fixed = np.zeros(self.n_features, dtype=bool)
        fixed[self.number_columns.numpy()] = self.numbers.fixed
        return fixed

    def unknown_columns(self) -> list[int]:
        """Return the positions of the columns that were never known."""
        numbers = self.number_columns[self.numbers.unknown_columns()].tolist()
        return sorted([*numbers, *self.empty_columns.tolist()])

    def fill_values(self, means: np.ndarray) -> torch.Tensor:
        """Return the means of the columns in the network's range, given those of the numbers."""
        numbers = self.numbers(torch.from_numpy(means))
        return torch.cat([numbers, numbers.new_zeros(len(self.level_column))])

    wide = property(lambda self: self.numbers.wide)
    center = property(lambda self: self.numbers.center)
    spread = property(lambda self: self.numbers.spread)
    has_constant = property(lambda self: self.numbers.has_constant)
    has_hidden = property(lambda self: self.numbers.has_hidden)
    has_unknown = property(lambda self: self.numbers.has_unknown or bool(len(self.empty_columns)))

    def _pad(self, levels: torch.Tensor) -> torch.Tensor:
        """Return logits of shape (n, n_categories, most levels), with -inf where there are none."""
        filled = torch.cat([levels, levels.new_full((levels.shape[0], 1), -torch.inf)], dim=1)
        flat = filled.index_select(1, self.padded.flatten().to(levels.device))
        return flat.view(levels.shape[0], *self.padded.shape)

    def _assembled(self, numbers: torch.Tensor, categories: torch.Tensor) -> torch.Tensor:
        empty = numbers.new_full((numbers.shape[0], len(self.empty_columns)), torch.nan)
        joined = torch.cat([numbers, categories.to(numbers.dtype), empty], dim=1)
        return joined.index_select(1, self._back.to(joined.device))


AnyScaling = Scaling | TableScaling

_KINDS = ("number", "category", "empty")


def learn_table_scaling(
    survey: Survey, shares: Sequence[np.ndarray | None], how: str | None
) -> tuple[TableScaling, np.ndarray]:
    """Return the map of a table, and the means of its numbers in their own units.

    Parameters
    ----------
    survey : Survey
        Of the rows of numbers of a table.
    shares
        As in `TableScaling`.
    how : str or None
        Value of `scaling`. "auto" standardizes numbers.
    """
    is_number = np.array([share is None for share in shares])
    numbers = survey.of_columns(is_number)
    scaling, means = learn_scaling(numbers, "standard" if how == "auto" else how)
    return TableScaling(_unbounded(scaling), shares), means


def extend_table_scaling(scaling: TableScaling, survey: Survey) -> TableScaling:
    """Return the map, updated for numbers that were constant or unknown before."""
    numbers = extend_scaling(scaling.numbers, survey)
    return scaling if numbers is scaling.numbers else TableScaling(numbers, scaling.shares)


def _unbounded(scaling: Scaling) -> Scaling:
    """Return a scaling whose decoder does not end in a sigmoid, as logits have no bounds."""
    settings: dict[str, Any] = {"center": scaling.center, "spread": scaling.spread}
    return Scaling(scaling.offset, scaling.scale, bounded=False, **settings)
