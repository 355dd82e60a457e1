import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


def test_code_in_the_readme_runs(request, capsys, tmp_path, monkeypatch, short_neighbors_preset):
    pytest.importorskip("plotly", reason="needs the extra 'map'")
    monkeypatch.chdir(tmp_path)  # a page is written there
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 5
    namespace = {}
    exec(blocks[0], namespace)
    assert 0.96 < float(capsys.readouterr().out) < 1
    # Of the others it is asked whether they run.
    for name in ("short_fits", "quick_exports"):
        request.getfixturevalue(name)
    namespace["pipeline"].set_params(autoencodertransformer__max_epochs=10)
    for name in ("X", "y", "X_train", "y_train"):
        namespace[name] = namespace[name][:600]
    for block in blocks[1:]:
        exec(block, namespace)
    assert namespace["codes"].shape == (450, 3)


def test_files_that_the_readme_names_are_there():
    links = re.findall(r"\]\(([^)#]+)\)", README.read_text(encoding="utf-8"))
    for link in links:
        if not link.startswith("http"):
            assert (README.parent / link).exists(), link
