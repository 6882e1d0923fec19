"""The page unpacks what zlib packed, and is whole when it is loaded: in a browser, as test_report_browser says."""

from __future__ import annotations

import base64
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from test_report_browser import browser, opened, pytestmark, twins  # noqa: F401 - fixtures and the mark

UNPACK = (
    "text => btoa(inflated(Uint8Array.from(atob(text), each => each.charCodeAt(0)))"
    ".reduce((said, each) => said + String.fromCharCode(each), ''))"
)


def test_every_kind_of_block_is_unpacked_as_zlib_does(browser: Any, twins: Path) -> None:  # noqa: F811
    """Stored, fixed and dynamic codes, at every level; long and far repeats."""
    generator = np.random.default_rng(0)
    noise = generator.integers(0, 256, 66_000, dtype=np.uint8).tobytes()
    words = b" ".join(bytes(f"{number:x}", "ascii") for number in generator.integers(0, 5000, 8000))
    report = opened(browser, twins)
    for given in (b"", b"a", bytes(9_000), noise, words, noise[:32_000] + noise[:32_000]):
        for level, strategy in ((0, 0), (1, 0), (9, 0), (9, zlib.Z_FIXED), (9, zlib.Z_HUFFMAN_ONLY)):
            packer = zlib.compressobj(level, strategy=strategy)
            packed = packer.compress(given) + packer.flush()
            found = report.page.evaluate(UNPACK, base64.b64encode(packed).decode())
            assert base64.b64decode(found) == given, (len(given), level, strategy)
    assert report.said == []
    report.page.close()


def test_a_page_is_whole_when_it_is_loaded(browser: Any, twins: Path) -> None:  # noqa: F811
    """A command that prints a page does so then."""
    page = browser.new_page()
    page.add_init_script(
        "addEventListener('load', () => { window.panels = document.querySelectorAll('.panel').length; })"
    )
    page.goto(twins.as_uri())
    at_load = page.evaluate("window.panels")
    page.wait_for_selector("html[data-drawn]")
    assert at_load == page.locator(".panel").count() > 25
    page.close()
