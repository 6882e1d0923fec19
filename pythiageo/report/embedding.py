"""What a page holds of its own: scripts, styles, the drawing library, and the policy that lets no others run."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from jinja2 import Environment, StrictUndefined, Template
from plotly.offline import get_plotlyjs

from pythiageo.report.packing import deflate

_PAGE = Path(__file__).parent / "page"


def page_template(name: str) -> Template:
    """Return a page's template, in which every text is escaped."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string((_PAGE / name).read_text(encoding="utf-8"))


def page_scripts(names: Sequence[str]) -> str:
    """Return these scripts as one."""
    return "\n".join((_PAGE / f"{name}.js").read_text(encoding="utf-8") for name in names)


def page_style() -> str:
    """Return the pages' style sheet."""
    return (_PAGE / "report.css").read_text(encoding="utf-8")


@cache
def drawing_library() -> tuple[str, str]:
    """Return the source of plotly.js, and the same deflated: 4.8 MB and 1.9."""
    source = get_plotlyjs()
    return source, deflate(source)


def security_policy(scripts: Sequence[str]) -> str:
    """Return a content security policy under which only these scripts run, and nothing is fetched or sent."""
    digests = (base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "connect-src 'none'; base-uri 'none'; form-action 'none'"
    )
