"""Entry point of the ``pythiageo`` command and of ``python -m pythiageo``."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command line and exit with its code."""
    # a thread that waits for another one sleeps: spinning, two of them on a busy machine stop each other for seconds
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from pythiageo.cli.app import run  # noqa: PLC0415 - nothing heavy before the command is known

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
