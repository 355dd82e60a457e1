import os
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from aefeatures import AutoencoderOutlierDetector, AutoencoderTransformer
from aefeatures._detection import ScoreModule
from aefeatures._files import read_file, write_file


@parametrize_with_checks(
    [
        AutoencoderOutlierDetector(AutoencoderTransformer(max_epochs=2), random_state=0),
        AutoencoderOutlierDetector(
            AutoencoderTransformer(max_epochs=2), contamination=0.1, calibration_fraction=0
        ),
    ]
)
@pytest.mark.filterwarnings("ignore:n_components=. is not below:UserWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_scikit_learn_contract(estimator, check):
    check(estimator)


def line(n_rows, seed=0, noise=0.1):
    """Six columns that depend on two numbers."""
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(n_rows, 2))
    weights = np.random.default_rng(7).normal(size=(2, 6))
    return factors @ weights + noise * rng.normal(size=(n_rows, 6))


def short(**parameters):
    return AutoencoderOutlierDetector(
        AutoencoderTransformer(2, max_epochs=5), random_state=0, **parameters
    )


@pytest.fixture(scope="module")
def detector():
    return short().fit(line(800))


def mixed(n_rows, seed=0):
    """A frame in which a category and a date follow from a number."""
    rng = np.random.default_rng(seed)
    level = rng.integers(3, size=n_rows)
    frame = pd.DataFrame(
        {
            "size": level * 10 + rng.normal(size=n_rows),
            "kind": np.array(["small", "middle", "large"], dtype=object)[level],
            "day": pd.Timestamp("2024-01-01")
            + pd.to_timedelta(level * 100 + rng.integers(10, size=n_rows), unit="D"),
            "weight": level * 5 + rng.normal(size=n_rows),
        }
    )
    frame.loc[3, "kind"] = None
    frame.loc[4, "size"] = np.nan
    return frame


@pytest.fixture(scope="module")
def of_frame():
    return short().fit(mixed(400))


def test_row_off_the_dependence_is_an_outlier_although_each_value_is_common(detector):
    normal, off = line(400, seed=1), line(400, seed=1)
    column = off.std(axis=0).argmax()
    off[:, column] = off[::-1, column].copy()
    far = np.abs(normal - off)[:, column] > 1.5 * normal[:, column].std()
    y = np.r_[np.zeros(400), np.ones(far.sum())]
    assert roc_auc_score(y, -detector.score_samples(np.vstack([normal, off[far]]))) > 0.95
    assert (detector.predict(off[far]) == -1).mean() > 0.8
    assert (detector.predict(normal) == 1).mean() > 0.85


def test_decision_is_score_minus_offset(detector):
    X = line(50, seed=2)
    decision = detector.decision_function(X)
    np.testing.assert_array_equal(decision, detector.score_samples(X) - detector.offset_)
    np.testing.assert_array_equal(detector.predict(X), np.where(decision < 0, -1, 1))


@pytest.mark.parametrize("contamination", [0.01, 0.1, 0.5])
def test_contamination_is_the_share_of_training_rows(contamination):
    X = line(300)
    labels = short(contamination=contamination).fit_predict(X)
    assert (labels == -1).mean() == pytest.approx(contamination, abs=1 / 300)


def test_autoencoder_does_not_learn_the_rows_that_contamination_declares_outliers():
    rng = np.random.default_rng(0)
    outliers = rng.normal(size=(40, 6)) * [0, 0, 0, 0, 4, 4]  # in a direction of their own
    X = np.concatenate([line(400), outliers])
    errors = []
    for contamination in ("auto", 0.1):
        detector = short(contamination=contamination, calibration_fraction=0).fit(X)
        errors.append(-detector.autoencoder_.score_samples(outliers).mean())
    assert errors[1] > 1.5 * errors[0]


@pytest.mark.parametrize("contamination", [0, -0.1, 0.6, "some", None])
def test_contamination_outside_of_its_range_is_refused(contamination):
    with pytest.raises(ValueError, match="The 'contamination' parameter of AutoencoderOutlierDet"):
        short(contamination=contamination).fit(line(20))


def test_scores_of_training_rows_are_like_those_of_new_rows():
    X, new = line(400), line(400, seed=5)
    detector = short().fit(X)
    ratio = np.median(detector.score_samples(X)) / np.median(detector.score_samples(new))
    assert 0.85 < ratio < 1.15


@pytest.mark.parametrize("share", [0.05, 0.1, 0.3])
def test_p_values_are_uniform_on_normal_rows(share):
    shares = []
    for seed in range(3):
        detector = short(calibration_fraction=0.4).set_params(random_state=seed)
        detector.fit(line(1000, seed=seed))
        shares.append((detector.p_values(line(2000, seed=100 + seed)) <= share).mean())
    assert np.mean(shares) == pytest.approx(share, rel=1 / 3)


def test_p_values_follow_the_scores():
    detector = short(calibration_fraction=0.25).fit(line(200))
    X = np.vstack([line(50, seed=3), 100 + line(2)])
    p_values = detector.p_values(X)
    assert len(detector.calibration_scores_) == 50
    assert (p_values[-2:] == 1 / 51).all()
    assert (np.diff(p_values[np.argsort(detector.score_samples(X))]) >= 0).all()
    assert p_values.max() <= 1


@pytest.mark.parametrize(("n_rows", "n_aside"), [(199, 0), (200, 20)])
def test_few_rows_are_all_trained_on(n_rows, n_aside):
    assert len(short().fit(line(n_rows)).calibration_scores_) == n_aside


def test_p_values_need_rows_that_were_kept_aside():
    detector = short(calibration_fraction=0).fit(line(40))
    with pytest.raises(ValueError, match=r"none with calibration_fraction=0\. Fit with a larger"):
        detector.p_values(line(2))


def test_calibration_rows_are_unseen():
    X = line(100)
    X[:, 0] += 1000 * np.arange(100)
    detector = short(calibration_fraction=0.3).fit(X)
    seen = fitted_values(detector, X)
    assert seen.sum() == 70


def fitted_values(detector, X):
    """Whether each row of X is a landmark."""
    values, _ = next(detector._rows_and_misses(detector._rows(X, "test"), n_numbers=1))
    landmarks = vars(detector._landmarks)["values"]
    return np.isclose(values[:, None], landmarks).all(axis=2).any(axis=1)


@pytest.mark.parametrize("n_landmarks", [1, 2, 7, 10_000])
def test_number_of_landmarks(n_landmarks):
    X = line(60)
    detector = short(n_landmarks=n_landmarks).fit(X)
    assert fitted_values(detector, X).sum() == min(n_landmarks, 60)
    assert np.isfinite(detector.score_samples(line(5, seed=4))).all()
    assert detector.explain(X[:2]).column.shape == (2, 6)


def test_pickle_does_not_grow_with_the_rows():
    few, many = (short(n_landmarks=100).fit(line(n)) for n in (1000, 4000))
    size, larger = (len(pickle.dumps(each)) for each in (few, many))
    assert larger < 1.2 * size + 8 * 400


def test_pickle_keeps_all_results(detector):
    X = line(20, seed=6)
    again = pickle.loads(pickle.dumps(detector))
    np.testing.assert_array_equal(again.score_samples(X), detector.score_samples(X))
    np.testing.assert_array_equal(again.p_values(X), detector.p_values(X))
    np.testing.assert_array_equal(again.explain(X).part, detector.explain(X).part)


def assert_same_results(detector, again, X):
    np.testing.assert_array_equal(again.score_samples(X), detector.score_samples(X))
    np.testing.assert_array_equal(again.predict(X), detector.predict(X))
    np.testing.assert_array_equal(again.p_values(X), detector.p_values(X))
    np.testing.assert_array_equal(again.explain(X).part, detector.explain(X).part)


def test_saved_and_loaded(detector, of_frame, tmp_path):
    for each, X in ((detector, line(400, seed=6)), (of_frame, mixed(400))):
        each.save(tmp_path / "detector.safetensors")
        again = AutoencoderOutlierDetector.load(tmp_path / "detector.safetensors")
        assert_same_results(each, again, X)
        assert again.get_params(deep=False).keys() == each.get_params(deep=False).keys()
        assert again.n_landmarks == each.n_landmarks
        assert again.autoencoder.max_epochs == each.autoencoder.max_epochs
        assert again.n_features_in_ == each.n_features_in_


def test_default_autoencoder_stays_the_default_in_a_file(tmp_path):
    path = tmp_path / "detector.safetensors"
    AutoencoderOutlierDetector(n_neighbors=3, random_state=0).fit(line(30)).save(path)
    loaded = AutoencoderOutlierDetector.load(path, device="cpu")
    assert loaded.autoencoder is None
    assert loaded.n_neighbors == 3
    assert loaded.autoencoder_.device == "cpu"


def test_files_of_transformers_and_of_detectors_are_told_apart(detector, tmp_path):
    detector.save(tmp_path / "detector")
    detector.autoencoder_.save(tmp_path / "transformer")
    with pytest.raises(ValueError, match="contains 'AutoencoderTransformer', not 'AutoencoderOutl"):
        AutoencoderOutlierDetector.load(tmp_path / "transformer")
    with pytest.raises(ValueError, match="contains 'AutoencoderOutlierDetector', not 'Autoenc"):
        AutoencoderTransformer.load(tmp_path / "detector")


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("values", np.zeros((3, 5))),
        ("misses", None),
        ("typical_miss", np.zeros(5)),
        ("calibration_scores", np.array([np.nan])),
        ("offset", np.array(1)),
        ("more", np.zeros(3)),
    ],
)
def test_damaged_files_are_refused(detector, tmp_path, name, array):
    path = tmp_path / "detector"
    detector.save(path)
    document, arrays = read_file(path)
    arrays.pop(f"owner.{name}", None)
    if array is not None:
        arrays[f"owner.{name}"] = array
    for key in ("digest", "format", "needs"):
        del document[key]
    write_file(path, document, arrays)
    with pytest.raises(ValueError, match=f"{path} cannot be loaded: .*{name}"):
        AutoencoderOutlierDetector.load(path)


def test_unknown_settings_in_a_file_are_refused(detector, tmp_path):
    path = tmp_path / "detector"
    detector.save(path)
    document, arrays = read_file(path)
    for change in ({"n_neighbors": 0}, {"n_neighbours": 3}, {"n_neighbors": [10]}):
        changed = {**document["owner"], "parameters": change}
        rest = {key: document[key] for key in document if key not in ("digest", "format", "needs")}
        write_file(path, {**rest, "owner": changed}, arrays)
        with pytest.raises(ValueError, match=r"cannot be loaded: .*n_neigh"):
            AutoencoderOutlierDetector.load(path)


def test_same_seed_same_scores():
    X, new = line(100), line(10, seed=8)
    expected = short().fit(X).score_samples(new)
    np.testing.assert_array_equal(short().fit(X).score_samples(new), expected)
    other = short().set_params(random_state=1).fit(X)
    assert (other.score_samples(new) != expected).any()


def test_parameters_are_not_changed():
    autoencoder = AutoencoderTransformer(2, max_epochs=1)
    detector = AutoencoderOutlierDetector(autoencoder).fit(line(30))
    assert detector.autoencoder is autoencoder
    assert not hasattr(autoencoder, "n_iter_")
    assert autoencoder.random_state is None


def test_autoencoder_of_another_kind_is_refused():
    with pytest.raises(ValueError, match="The 'autoencoder' parameter of AutoencoderOutlierDet"):
        AutoencoderOutlierDetector(PCA()).fit(line(20))


def test_failed_fit_leaves_the_detector_as_it_was():
    detector = short().fit(line(50))
    before = detector.score_samples(line(5))
    with pytest.raises(ValueError, match="infinity"):
        detector.fit(np.full((20, 6), np.inf))
    np.testing.assert_array_equal(detector.score_samples(line(5)), before)


def test_default_autoencoder_standardizes_except_for_pictures(short_fits):
    X = load_digits().data[:200]
    detector = AutoencoderOutlierDetector(random_state=0)
    for rows, scaling in ((X, "standard"), ((X * 15).astype(np.uint8), "auto")):
        assert clone(detector).fit(rows).autoencoder_.scaling == scaling


@pytest.mark.parametrize("contamination", ["auto", 0.2])
def test_labels_reach_an_autoencoder_that_needs_them(contamination):
    X = line(120)
    y = np.where(X[:, 0] > 0, "yes", "no")
    autoencoder = AutoencoderTransformer(2, max_epochs=2, regularizer="supervised")
    detector = AutoencoderOutlierDetector(
        autoencoder, contamination=contamination, random_state=0
    ).fit(X, y)
    assert detector.autoencoder_.task_ == "classification"


def test_in_a_pipeline_and_a_search():
    X = line(200)
    y = np.where(np.arange(200) % 20, 1, -1)
    X[y < 0] += 20
    pipeline = make_pipeline(StandardScaler(), short(contamination=0.05)).fit(X)
    assert (pipeline.predict(X)[y < 0] == -1).mean() > 0.5
    search = GridSearchCV(short(), {"n_neighbors": [3, 40]}, scoring="roc_auc", cv=3)
    assert search.fit(X, y).best_score_ > 0.9


@pytest.mark.parametrize("container", [sparse.csr_matrix, sparse.coo_array, np.asfortranarray])
def test_containers_give_the_scores_of_the_array(container):
    X = line(100) * (line(100, seed=9) > 0)
    expected = short().fit(X).score_samples(X)
    found = short().fit(container(X)).score_samples(container(X))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_float32_rows_give_the_same_scores(detector):
    X = line(30, seed=1)
    scores = detector.score_samples(X.astype(np.float32))
    np.testing.assert_allclose(scores, detector.score_samples(X), rtol=1e-3)


def test_missing_value_leaves_scores_comparable(detector):
    X = line(100, seed=3)
    gaps = X.copy()
    gaps[np.arange(100), np.arange(100) % 6] = np.nan
    full, with_gaps = detector.score_samples(X), detector.score_samples(gaps)
    assert np.isfinite(with_gaps).all()
    assert (with_gaps > detector.offset_).mean() > 0.6
    nothing = detector.score_samples(np.full((1, 6), np.nan))
    assert nothing > np.quantile(full, 0.05)


@pytest.mark.filterwarnings("ignore:X has no known value in column 7:UserWarning")
def test_constant_and_unknown_columns():
    X = np.column_stack([line(100), np.full(100, 5.0), np.full(100, np.nan)])
    detector = short().fit(X)
    new = X[:3].copy()
    new[0, 6] = 50
    assert np.isfinite(detector.score_samples(new)).all()
    assert detector.predict(new)[0] == -1
    explanation = detector.explain(new)
    assert explanation.column[0, 0] == 6
    assert explanation.expected[0, 0] == 5


@pytest.mark.parametrize("n_rows", [1, 2, 5])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_few_rows(n_rows):
    X = line(n_rows)
    detector = short().fit(X)
    assert detector.score_samples(X).shape == (n_rows,)
    assert np.isfinite(detector.explain(X).part).all()


def test_frame_with_categories_dates_and_gaps(of_frame):
    frame = mixed(50, seed=1)
    frame.index = [f"r{i}" for i in range(50)]
    wrong = frame.iloc[:1].copy()
    wrong["kind"] = "large" if frame["kind"].iloc[0] != "large" else "small"
    assert of_frame.score_samples(wrong) < of_frame.score_samples(frame.iloc[:1])
    assert of_frame.predict(wrong) == -1
    explanation = of_frame.explain(wrong)
    assert list(explanation) == ["row", "column", "value", "expected", "part"]
    first = explanation.iloc[0]
    assert (first["row"], first["column"]) == ("r0", "kind")
    assert (first["value"], first["expected"]) == (wrong["kind"].iloc[0], frame["kind"].iloc[0])
    day = explanation.set_index("column").loc["day"]
    assert frame["day"].min() <= day["expected"] <= frame["day"].max()


def test_explanation_of_a_missing_value_is_an_estimate(of_frame):
    gap = mixed(50, seed=1).iloc[[10]].copy()
    expected = gap["size"].iloc[0]
    gap["size"] = np.nan
    row = of_frame.explain(gap).set_index("column").loc["size"]
    assert row["part"] == 0
    assert row["expected"] == pytest.approx(expected, abs=3)


def test_polars_frame_gets_a_polars_frame(of_frame):
    frame = mixed(60)
    table = pl.from_pandas(frame)
    detector = short().fit(table)
    np.testing.assert_allclose(
        detector.score_samples(table), short().fit(frame).score_samples(frame), rtol=1e-4
    )
    explanation = detector.explain(table[:2], n_columns=2)
    assert isinstance(explanation, pl.DataFrame)
    assert explanation["row"].to_list() == [0, 0, 1, 1]
    numbers = pl.DataFrame(line(50), schema=list("abcdef"))
    assert short().fit(numbers).explain(numbers[:1])["value"].dtype == pl.Float64


def test_explanation_of_an_array(detector):
    X = line(4, seed=1)
    X[:, 2] += 5
    explanation = detector.explain(X, n_columns=3)
    assert explanation.column.shape == (4, 3)
    assert (explanation.column[:, 0] == 2).mean() >= 0.75
    np.testing.assert_array_equal(explanation.value, np.take_along_axis(X, explanation.column, 1))
    assert (np.diff(explanation.part) <= 0).all()
    whole = detector.explain(X)
    np.testing.assert_array_equal(whole.column[:, :3], explanation.column)
    assert sorted(whole.column[0]) == list(range(6))


@pytest.mark.parametrize("n_columns", [0, -1, 2.5, True, "all"])
def test_number_of_columns_is_checked(detector, n_columns):
    with pytest.raises(ValueError, match="n_columns must be an int of at least 1 or None, got"):
        detector.explain(line(2), n_columns=n_columns)


def test_planted_value_is_named_first_more_often_than_by_z_scores(detector):
    X, rng = line(800), np.random.default_rng(3)
    rows, columns = line(200, seed=11), rng.integers(6, size=200)
    rows[np.arange(200), columns] += rng.choice([-4, 4], 200) * X.std(axis=0)[columns]
    first = (detector.explain(rows).column[:, 0] == columns).mean()
    z_scores = np.abs(StandardScaler().fit(X).transform(rows))
    assert first >= 0.8
    assert first >= (z_scores.argmax(axis=1) == columns).mean()


def test_exchanged_value_is_among_the_first_three_more_often_than_by_z_scores(detector):
    X, rng = line(800), np.random.default_rng(4)
    rows, columns = line(200, seed=12), rng.integers(6, size=200)
    rows[np.arange(200), columns] = X[rng.integers(800, size=200), columns]
    named = (detector.explain(rows, n_columns=3).column == columns[:, None]).any(axis=1).mean()
    z_scores = np.argsort(-np.abs(StandardScaler().fit(X).transform(rows)), axis=1)[:, :3]
    assert named > 1.2 * (z_scores == columns[:, None]).any(axis=1).mean()


def test_wrong_columns_are_refused(detector, of_frame):
    with pytest.raises(ValueError, match="X has 5 features, but"):
        detector.score_samples(line(3)[:, :5])
    with pytest.raises(ValueError, match="feature names should match those that were passed"):
        of_frame.explain(mixed(20).rename(columns={"size": "length"}))


def point_mass(n_equal, n_rows=200):
    """Rows of which the last ones are equal."""
    rows = line(n_rows)
    rows[-n_equal:] = rows[-1]
    return rows


@pytest.mark.parametrize(
    ("contamination", "n_equal"), [("auto", 120), ("auto", 190), (0.02, 190), (0.3, 120)]
)
def test_row_that_occurs_often_is_no_outlier(contamination, n_equal):
    rows = point_mass(n_equal)
    detector = short(contamination=contamination).fit(rows)
    labels = detector.predict(rows)
    assert (labels[-n_equal:] == 1).all()
    for chosen in ([0], [1], [-1], np.s_[::7], np.s_[::-1]):
        for dtype in (np.float32, np.float64):
            assert (detector.predict(rows[chosen].astype(dtype)) == labels[chosen]).all()


@pytest.mark.parametrize("size", [300.1, 3e3 + 0.1, 1e5 + 0.1])
def test_far_training_row_is_not_its_own_neighbor_in_another_precision(size):
    rows = np.column_stack([line(300), np.zeros(300)])
    rows[:2, 6] = size, -size  # left out of the second training, which then takes 1 as the unit
    detector = short(calibration_fraction=0, contamination=0.01).fit(rows)
    far = rows[:1]
    np.testing.assert_allclose(
        detector.score_samples(far.astype(np.float32)), detector.score_samples(far), rtol=1e-4
    )
    expected = [detector.explain(far.astype(dtype)).expected for dtype in (np.float32, np.float64)]
    np.testing.assert_allclose(*expected, rtol=1e-3, atol=1e-3)


def test_exported_module_scores_equal_rows_and_huge_values_as_the_detector_does():
    rows = point_mass(120)
    detector = short().fit(rows)
    rows[1, 3], rows[2, 4] = 1e9, 1e30
    labels, scores = ScoreModule(detector)(torch.tensor(rows, dtype=torch.float32))
    np.testing.assert_array_equal(labels, detector.predict(rows))
    expected = detector.score_samples(rows)
    np.testing.assert_allclose(scores.detach(), expected, rtol=1e-4, atol=1e-5)


def test_value_of_a_row_that_occurs_often_is_expected():
    rows = point_mass(100)
    explanation = short().fit(rows).explain(rows[-1:])
    np.testing.assert_allclose(explanation.expected, explanation.value)
    assert explanation.part.max() < 1e-3


def test_common_combination_of_categories_is_expected():
    kinds = np.random.default_rng(0).choice(["a", "b", "c"], 300, p=[0.6, 0.3, 0.1])
    frame = pd.DataFrame({"small": kinds, "large": np.char.upper(kinds)})
    detector = short().fit(frame)
    for kind in "abc":
        usual = detector.explain(pd.DataFrame({"small": [kind], "large": [kind.upper()]}))
        assert (usual["value"] == usual["expected"]).all()
        assert usual["part"].max() < 0.1
    strange = detector.explain(pd.DataFrame({"small": ["a"], "large": ["B"]}))
    assert (strange["value"] != strange["expected"]).all()
    assert strange["part"].min() > 0.5
    unseen = detector.explain(pd.DataFrame({"small": ["z"], "large": ["B"]}))
    assert unseen.set_index("column").loc["small", ["value", "expected", "part"]].tolist() == [
        "z", "b", 0
    ]  # fmt: skip


@pytest.mark.parametrize("factor", [1e7, 1e18, 1e38, 1e160, 1e300])
def test_huge_value_is_named_and_hides_no_other_column(detector, factor):
    row = line(1, seed=5)
    huge = row.copy()
    huge[0, 3] = factor
    assert detector.predict(huge) == [-1]
    assert np.isfinite(detector.score_samples(huge))
    explanation, usual = detector.explain(huge), detector.explain(row)
    assert explanation.column[0, 0] == 3
    assert np.isfinite(explanation.part).all()
    at_3 = usual.column[0].tolist().index(3)
    np.testing.assert_allclose(explanation.expected[0, 0], usual.expected[0, at_3])
    if factor <= 1e18:
        single = huge.astype(np.float32)
        np.testing.assert_allclose(
            detector.score_samples(single), detector.score_samples(huge), rtol=1e-4
        )


def test_rows_that_are_not_there_yet_are_refused():
    with pytest.raises(TypeError, match=r"polars LazyFrame, .* Pass X.collect\(\)"):
        short().fit(pl.DataFrame(line(20)).lazy())


@pytest.mark.parametrize("n_labels", [10, 60])
def test_labels_of_another_number_of_rows_are_refused(n_labels):
    detector = AutoencoderOutlierDetector(AutoencoderTransformer(2, regularizer="supervised"))
    with pytest.raises(ValueError, match=rf"inconsistent numbers of samples: \[40, {n_labels}\]"):
        detector.fit(line(40), np.arange(n_labels) % 2)


class Renamed(AutoencoderOutlierDetector):
    pass


def test_subclasses_are_saved_and_loaded(tmp_path):
    X = line(200)
    fitted = Renamed(AutoencoderTransformer(2, max_epochs=5), random_state=0).fit(X)
    fitted.save(tmp_path / "detector")
    for cls in (Renamed, AutoencoderOutlierDetector):
        loaded = cls.load(tmp_path / "detector")
        assert type(loaded) is cls
        assert_same_results(fitted, loaded, X)


@pytest.mark.slow
def test_better_than_neighbors_and_trees_on_labelled_sets():
    folder = Path(os.environ.get("AEFEATURES_DATA", "")) / "anomaly"
    sets = ["19_landsat", "35_SpamBase", "39_vertebral", "41_Waveform", "47_yeast"]
    if not folder.exists():
        pytest.skip("needs the folder anomaly in the folder that AEFEATURES_DATA names")
    areas = {"ours": [], "neighbors": [], "forest": []}
    for name in sets:
        with np.load(folder / f"{name}.npz") as data:
            X, y = data["X"].astype(float), data["y"].astype(int)
        training = np.random.default_rng(0).permutation(np.flatnonzero(y == 0))[
            : (y == 0).sum() // 2
        ]
        rest = np.setdiff1d(np.arange(len(y)), training)
        scaler = StandardScaler().fit(X[training])
        search = NearestNeighbors(n_neighbors=5).fit(scaler.transform(X[training]))
        ours = AutoencoderOutlierDetector(random_state=0).fit(X[training])
        forest = IsolationForest(random_state=0).fit(X[training])
        distances = {
            "ours": -ours.score_samples(X[rest]),
            "neighbors": search.kneighbors(scaler.transform(X[rest]))[0][:, -1],
            "forest": -forest.score_samples(X[rest]),
        }
        for kind, each in distances.items():
            areas[kind].append(roc_auc_score(y[rest], each))
    means = {kind: np.mean(each) for kind, each in areas.items()}
    assert means["ours"] > means["neighbors"] > means["forest"]
