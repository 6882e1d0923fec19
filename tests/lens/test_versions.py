"""Libraries outside the known ranges are refused in a sentence."""

from __future__ import annotations

import pytest

from pythiageo.errors import UserError
from pythiageo.lens.versions import check_versions


def test_what_is_installed_here_is_known_to_work() -> None:
    check_versions()


def test_a_version_outside_its_range_is_refused() -> None:
    with pytest.raises(UserError, match=r"transformer-lens 4\..* is installed.*known to work with <4: pip install"):
        check_versions(["transformer-lens<4"])
    check_versions(["transformer-lens<4; extra == 'other'", "numpy<1"])  # not asked for, and no reader
