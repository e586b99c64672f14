"""`edge-wm explain`: what a reason or a mode means, and what to do about it."""

from __future__ import annotations

import difflib
import json
from typing import Annotated, Any

import typer

from edge_wm.errors import UsageError
from edge_wm.modes import LATCHED, MEANINGS, TRANSITIONS, Mode
from edge_wm.reasons import EXPLANATIONS, Reason


def explain(
    what: Annotated[
        str | None, typer.Argument(help="A reason's number or name, or a mode's name.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Explain a reason or a mode; without an argument, list them all."""
    if what is None:
        modes, reasons = [mode_facts(m) for m in Mode], [reason_facts(r) for r in Reason]
        typer.echo(
            json.dumps({"modes": modes, "reasons": reasons}, indent=2)
            if as_json
            else listing(modes, reasons)
        )
        return
    found = find(what)
    facts = mode_facts(found) if isinstance(found, Mode) else reason_facts(found)
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
    else:
        typer.echo(mode_page(facts) if isinstance(found, Mode) else reason_page(facts))


def find(what: str) -> Mode | Reason:
    """The reason with this number or name, or the mode with this name.

    Raises UsageError, with what is spelled most like it, if there is neither.
    """
    by_name: dict[str, Mode | Reason] = {
        **{mode.name: mode for mode in Mode},
        **{reason.name: reason for reason in Reason},
    }
    by_number = {str(int(reason)): reason for reason in Reason}
    name = what.strip().lower().replace("-", "_").replace(" ", "_")
    found = by_number.get(name) or by_name.get(name)
    if found is not None:
        return found
    if name.isdecimal():
        raise UsageError(f"no reason has the number {what}; `edge-wm explain` lists them all")
    close = difflib.get_close_matches(name, by_name, n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(close)}? " if close else ""
    raise UsageError(
        f"no reason or mode is called {what!r}; {hint}`edge-wm explain` lists them all"
    )


def reason_facts(reason: Reason) -> dict[str, Any]:
    explanation = EXPLANATIONS[reason]
    return {
        "kind": "reason",
        "number": int(reason),
        "name": reason.name,
        "sentence": explanation.sentence,
        "cause": explanation.cause,
        "check": explanation.check,
    }


def mode_facts(mode: Mode) -> dict[str, Any]:
    return {
        "kind": "mode",
        "number": int(mode),
        "name": mode.name,
        "meaning": MEANINGS[mode],
        "latched": mode in LATCHED,
        "next": {
            target.name: sorted(by)
            for (source, target), by in sorted(TRANSITIONS.items())
            if source == mode
        },
    }


def reason_page(facts: dict[str, Any]) -> str:
    return (
        f"{facts['name']} (reason {facts['number']})\n"
        f"  {facts['sentence']}\n"
        f"  likely cause: {facts['cause']}\n"
        f"  what to check: {facts['check']}"
    )


def mode_page(facts: dict[str, Any]) -> str:
    lines = [f"{facts['name']} (mode {facts['number']})", f"  {facts['meaning']}"]
    lines += [f"  to {target}: by {', '.join(by)}" for target, by in facts["next"].items()]
    return "\n".join(lines)


def listing(modes: list[dict[str, Any]], reasons: list[dict[str, Any]]) -> str:
    lines = ["modes"]
    lines += [f"  {m['number']:>3}  {m['name']:<26}{m['meaning']}" for m in modes]
    lines += ["reasons"]
    lines += [f"  {r['number']:>3}  {r['name']:<26}{r['sentence']}" for r in reasons]
    return "\n".join(lines)
