"""Where the robot files and bundles that come with edge-wm lie.

In a checkout they are `robots/` and `zoo/` beside the package; in an installed wheel they are
inside the package, under `share/`.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def folder(name: str) -> Path:
    """The folder `name` ("robots" or "zoo"), from the checkout if there is one."""
    checkout = _PACKAGE.parent / name
    if (_PACKAGE.parent / "pyproject.toml").is_file() and checkout.is_dir():
        return checkout
    return _PACKAGE / "share" / name
