"""Pipelines in MLflow's stores and formats, without a server or a network."""

import numpy as np
import pytest
import skops.io
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from aefeatures import AutoencoderTransformer

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def pipeline(digits):
    codes = AutoencoderTransformer(max_epochs=3, random_state=0)
    return make_pipeline(StandardScaler(), codes, SVC()).fit(digits[0], digits[2])


@pytest.mark.parametrize("store", ["sqlite", "file"])
@pytest.mark.parametrize("serialization_format", ["skops", "cloudpickle"])
def test_mlflow(pipeline, digits, tmp_path, monkeypatch, store, serialization_format):
    import mlflow

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # MLflow refuses it otherwise
    uri = f"sqlite:///{tmp_path}/mlflow.db" if store == "sqlite" else f"file:{tmp_path}/mlruns"
    trusted = skops.io.get_untrusted_types(data=skops.io.dumps(pipeline))
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    try:
        with mlflow.start_run():
            mlflow.log_metric("loss", pipeline[1].loss_)
            logged = mlflow.sklearn.log_model(
                pipeline,
                name="model",
                serialization_format=serialization_format,
                skops_trusted_types=trusted if serialization_format == "skops" else None,
                pip_requirements=["aefeatures"],
            )
        loaded = mlflow.sklearn.load_model(logged.model_uri)
        served = mlflow.pyfunc.load_model(logged.model_uri)
    finally:
        mlflow.set_tracking_uri(before)
    X = digits[1]
    expected = pipeline.decision_function(X)
    np.testing.assert_array_equal(loaded.decision_function(X), expected)
    np.testing.assert_array_equal(served.predict(X), pipeline.predict(X))
