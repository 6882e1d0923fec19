"""Entry point of the ``pythiageo`` command and of ``python -m pythiageo``."""

from __future__ import annotations

import os
import sys
import threading
import traceback


def main() -> None:
    """Run the command line and exit with its code."""
    # a thread that waits for another one sleeps: spinning, two of them on a busy machine stop each other for seconds
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from pythiageo.cli.app import run  # noqa: PLC0415 - nothing heavy before the command is known
    from pythiageo.errors import EXIT_BROKEN, EXIT_INTERRUPTED  # noqa: PLC0415
    from pythiageo.interrupts import answer_signals  # noqa: PLC0415

    answer_signals()
    try:
        code = run(sys.argv[1:])
    except Exception:
        # python's own exit code for it is 1, which says that the command finished
        traceback.print_exc()
        code = EXIT_BROKEN
    if code == EXIT_INTERRUPTED and threading.active_count() > 1:
        # a transfer that hangs would be waited for on the way out, and all there is to keep is on the disk
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    main()
