"""What a release is known by: one version everywhere, and a citation file that citation tools read."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from pythiageo import __version__

ROOT = Path(__file__).parents[2]


def test_the_citation_file_names_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    # what version 1.2.0 of the format demands, and what a reference needs
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors", "license"} <= set(citation)
    assert all(author["name"] for author in citation["authors"])
    assert citation["version"] == __version__


def test_the_changelog_begins_with_this_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (\S+)", changelog, re.MULTILINE)[0].rstrip(",") == __version__


def test_every_page_of_the_docs_is_on_the_site() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").split("\nnav:")[1]
    listed = re.findall(r"([\w-]+\.md)$", navigation, re.MULTILINE)
    assert len(listed) == len(set(listed))
    assert set(listed) - {"index.md", "contributing.md", "changelog.md", "docstrings.md"} == {
        path.name for path in (ROOT / "docs").glob("*.md")
    }
