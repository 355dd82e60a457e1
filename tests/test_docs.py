import ast
import builtins
import doctest
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import aefeatures

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize("page", ["tutorial", "user_guide", "coming_from"])
def test_code_in_the_docs_runs(page, tmp_path, monkeypatch, short_fits, quick_exports):
    monkeypatch.chdir(tmp_path)
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) >= 3
    namespace = {}
    for block in blocks:
        exec(block, namespace)


def examples():
    """The examples in the docstrings of all public names."""
    finder = doctest.DocTestFinder()
    for name in [*aefeatures.__all__, "AutoencoderOversampler"]:
        public = getattr(aefeatures, name)
        if callable(public):
            yield from (test for test in finder.find(public, name) if test.examples)


def test_examples_import_what_they_use():
    # Run as doctests they also see what their module imports.
    unknown = set()
    for test in examples():
        tree = ast.parse("".join(example.source for example in test.examples))
        nodes = list(ast.walk(tree))
        known = {*dir(builtins), *(n.arg for n in nodes if isinstance(n, ast.arg))}
        known |= {n.name for n in nodes if isinstance(n, ast.FunctionDef | ast.ClassDef)}
        names = [n for n in nodes if isinstance(n, ast.Name)]
        known |= {n.id for n in names if isinstance(n.ctx, ast.Store)}
        for node in nodes:
            if isinstance(node, ast.Import | ast.ImportFrom):
                known |= {alias.asname or alias.name.split(".")[0] for alias in node.names}
        unknown |= {(test.name, n.id) for n in names if n.id not in known}
    assert unknown == set()


def recipe(word):
    """The block of code of docs/scale.md that has a word in it."""
    text = (DOCS / "scale.md").read_text(encoding="utf-8")
    (block,) = [b for b in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if word in b]
    return block


@pytest.mark.slow
def test_recipe_for_dask(digits, fitted):
    array = pytest.importorskip("dask.array", reason="needs Dask")
    X = digits[0]
    namespace = {
        "np": np,
        "transformer": fitted,
        "rows": array.from_array(X, chunks=(500, 64)),
    }
    exec(recipe("map_blocks"), namespace)
    np.testing.assert_array_equal(namespace["codes"].compute(), fitted.transform(X))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:PySpark does not yet fully support:FutureWarning")
def test_recipe_for_spark(digits, monkeypatch):
    sql = pytest.importorskip("pyspark.sql", reason="needs Spark")
    pd = pytest.importorskip("pandas")
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    monkeypatch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
    frame = pd.DataFrame(digits[0], columns=[f"x{i}" for i in range(64)])
    builder = sql.SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
    spark = builder.config("spark.driver.bindAddress", "127.0.0.1").getOrCreate()
    transformer = aefeatures.AutoencoderTransformer(max_epochs=2, random_state=0).fit(frame)
    namespace = {"pd": pd, "transformer": transformer, "table": spark.createDataFrame(frame)}
    exec(recipe("mapInPandas"), namespace)
    codes = np.array(namespace["codes"].collect())
    spark.stop()
    expected = transformer.transform(frame)
    np.testing.assert_allclose(np.sort(codes, axis=0), np.sort(expected, axis=0))


def test_every_public_name_is_documented():
    text = (DOCS / "api.md").read_text(encoding="utf-8")
    listed = re.findall(r"^   (\w+)$", text, re.MULTILINE)
    assert sorted(listed) == sorted([*aefeatures.__all__, "AutoencoderOversampler"])
