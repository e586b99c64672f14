"""The record of a hardware-in-the-loop run as one HTML page, without anything from outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from firmware_bridge.hil import Result

STYLE = """
body { font: 15px/1.4 sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; margin-bottom: 1.5rem; }
td, th { border-bottom: 1px solid #ccc; padding: .25rem .5rem; text-align: left; }
.ok { color: #176117; } .fail { color: #a40000; font-weight: bold; } .skipped { color: #666; }
"""


def page(about: Mapping[str, str], results: Sequence[Result]) -> str:
    """The whole page; all text is escaped."""
    failed = sum(not result.skipped and not result.passed for result in results)
    skipped = sum(bool(result.skipped) for result in results)
    verdict = f"{len(results) - failed - skipped} passed, {failed} failed, {skipped} not run"
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        f"<title>edge-wm hil: {escape(about.get('board', ''))}</title>",
        f"<style>{STYLE}</style></head><body>",
        f"<h1>Hardware in the loop</h1><p>{verdict}</p><table>",
        *(f"<tr><th>{escape(key)}</th><td>{escape(text)}</td></tr>" for key, text in about.items()),
        "</table>",
    ]
    for result in results:
        parts.append(f"<h2>{result.suite.number} {escape(result.suite.name)}</h2><table>")
        parts.append("<tr><th></th><th>check</th><th>measured</th><th>required</th></tr>")
        for check in result.checks:
            word, kind = ("ok", "ok") if check.ok else ("FAIL", "fail")
            cells = (check.name, check.measured, check.required)
            row = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
            parts.append(f"<tr><td class='{kind}'>{word}</td>{row}</tr>")
        if result.skipped:
            parts.append(
                f"<tr class='skipped'><td>-</td><td>not run</td>"
                f"<td colspan='2'>{escape(result.skipped)}</td></tr>"
            )
        parts.append("</table>")
    return "\n".join([*parts, "</body></html>"]) + "\n"
