import re
from pathlib import Path

import pytest

import aefeatures

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize("page", ["tutorial", "user_guide", "coming_from"])
def test_code_in_the_docs_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) >= 3
    namespace = {}
    for block in blocks:
        exec(block, namespace)


def test_every_public_name_is_documented():
    text = (DOCS / "api.md").read_text(encoding="utf-8")
    listed = re.findall(r"^   (\w+)$", text, re.MULTILINE)
    assert sorted(listed) == sorted([*aefeatures.__all__, "AutoencoderOversampler"])
