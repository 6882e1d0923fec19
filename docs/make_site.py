"""What the site is built of: ``python docs/make_site.py`` lays it into build/docs, and mkdocs.yml says the rest.

These are the pages of docs/, those at the root of the repository, one for what the docstrings say, and each file that a
page links to. Links between pages of the repository become links between pages of the site: no plug-in is needed.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

ROOT = Path(__file__).parents[1]
OUT = ROOT / "build" / "docs"
AT_ROOT = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
LINK = re.compile(r"(?<=\]\()((?:\.\./)?[\w./-]+)(?=[)#])")


def main() -> None:
    """Write all of it anew."""
    shutil.rmtree(OUT, ignore_errors=True)
    shutil.copytree(ROOT / "docs", OUT, ignore=shutil.ignore_patterns("*.py", "data", "__pycache__"))
    for source, page in AT_ROOT.items():
        write(OUT / page, (ROOT / source).read_text(encoding="utf-8"), "docs/", "")
    for page in (ROOT / "docs").glob("*.md"):
        write(OUT / page.name, page.read_text(encoding="utf-8"), "", "../")
    api = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    (OUT / "docstrings.md").write_text(docstrings(api), encoding="utf-8")


def write(path: Path, text: str, inside: str, outside: str) -> None:
    """Write a page with its links changed.

    ``inside``: what links to pages of docs/ begin with; ``outside``: what links to other files of the repository do.
    """

    def place(found: re.Match[str]) -> str:
        link = found[1]
        if inside and link.startswith(inside):
            return link.removeprefix(inside)
        if outside and not link.startswith(outside):
            return link
        name = link.removeprefix(outside)
        if name in AT_ROOT:
            return AT_ROOT[name]
        (OUT / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, OUT / name)
        return name

    path.write_text(LINK.sub(place, text), encoding="utf-8")


def docstrings(api: str) -> str:
    """Return a page with every public name of every room that docs/api.md lists, for mkdocstrings to fill."""
    rooms = re.split(r"^## (pythiageo[\w.]*)$", api, flags=re.MULTILINE)
    parts = ["# Docstrings\n\nWhat every [public name](api.md) takes, returns and raises.\n"]
    for room, text in zip(rooms[1::2], rooms[2::2], strict=True):
        cells = re.findall(r"^\| (`[^|]*) \|", text, re.MULTILINE)
        names = re.findall(r"`([A-Za-z]\w*)`", " ".join(cells))
        parts += [f"## {room}\n", *(f"::: {room}.{name}\n" for name in names)]
    return "\n".join(parts)


if __name__ == "__main__":
    main()
