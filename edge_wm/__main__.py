"""The door of the command line: `edge-wm`, and `python -m edge_wm`.

Loading takes a second or so. A Ctrl-C in that time simply ends the process: nothing runs yet, and
half-loaded libraries answer an exception with tracebacks of their own.
"""

from __future__ import annotations

import signal


def main() -> None:
    """Load the command line, then run it."""
    handler = signal.signal(signal.SIGINT, signal.SIG_DFL)
    from edge_wm.cli import main as command_line

    signal.signal(signal.SIGINT, handler)
    command_line()


if __name__ == "__main__":
    main()
