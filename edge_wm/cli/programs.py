"""`edge-wm bundle inspect --program`: what the native kernels will do, and what it costs."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from edge_wm.backends import choose
from edge_wm.bundle import Bundle
from edge_wm.bundle.program import (
    Dense,
    Operation,
    Program,
    Rows,
    View,
    operation_work,
    read_program,
)
from edge_wm.errors import EdgeWmError


def print_programs(bundle: Bundle, *, as_json: bool) -> None:
    """Every function: where it runs, multiply-adds, bytes, and its operations line by line."""
    programs = {
        str(name): read_program(bundle.blob(function.graphs["program"]), f"{name}.program")
        for name, function in bundle.manifest.functions.items()
        if "program" in function.graphs
    }
    if as_json:
        typer.echo(json.dumps({n: _facts(bundle, n, programs.get(n)) for n in _names(bundle)}))
        return
    console = Console(highlight=False)
    summary = Table("function", "runs on", "operations", "multiply-adds", "constants", box=None)
    for column in summary.columns[2:]:
        column.justify = "right"
    for name in _names(bundle):
        facts = _facts(bundle, name, programs.get(name))
        cells = [f"{facts[key]:,}" if key in facts else "" for key in ("count", "work", "bytes")]
        summary.add_row(name, facts["runs_on"], *cells)
    console.print(summary)
    for name, program in programs.items():
        table = Table(
            f"{name}:", "writes", "reads", "multiply-adds", box=None, title_justify="left"
        )
        table.columns[3].justify = "right"
        table.columns[0].no_wrap = True
        for operation in program.operations:
            work = operation_work(operation)
            table.add_row(
                _words(operation, program),
                _operands(operation, writes=True),
                _operands(operation, writes=False),
                f"{work:,}" if work else "",
            )
        console.print()
        console.print(table)


def _names(bundle: Bundle) -> list[str]:
    return [str(name) for name in bundle.manifest.functions]


def _facts(bundle: Bundle, name: str, program: Program | None) -> dict[str, Any]:
    function = bundle.manifest.functions[name]  # type: ignore[index]
    try:
        facts: dict[str, Any] = {"runs_on": choose(name, function.graphs)}
    except EdgeWmError as error:
        facts = {"runs_on": f"nothing installed: {error}"}
    if program is not None:
        facts |= {
            "count": len(program.operations),
            "work": program.work,
            "bytes": program.constant_bytes,
            "operations": msgspec.to_builtins(program.operations),
        }
    return facts


def _words(o: Operation, program: Program) -> str:
    """An operation in a few words: what, how large, in which precision."""
    fields: dict[str, Any] = msgspec.to_builtins(o)
    words = [str(fields["op"]), str(fields.get("kind", ""))]
    if isinstance(o, Dense):
        kinds = {program.constants[s.weight].dtype.name for s in o.segments}
        words.append(f"{'+'.join(str(s.size) for s in o.segments)} -> {o.size}")
        words.append("/".join(sorted(kinds)))
    else:
        words.append("x".join(map(str, fields.get("shape", [fields.get("size", "")]))))
    if fields.get("tokens", 1) > 1:
        words.append(f"for {fields['tokens']} tokens")
    if fields.get("activation", "none") != "none":
        words.append(f"then {fields['activation']}")
    return " ".join(word for word in words if word)


def _operands(o: Operation, *, writes: bool) -> str:
    """Registers as r3, or r3+8 from the ninth number on."""
    found: list[Rows | View] = []
    for field in o.__struct_fields__:
        value = getattr(o, field)
        if isinstance(value, Rows | View) and field.startswith("out") == writes:
            found.append(value)
        elif isinstance(o, Dense) and field == "segments" and not writes:
            found += [segment.x for segment in o.segments]
    names = [f"r{at.register}" + (f"+{at.offset}" if at.offset else "") for at in found]
    return " ".join(dict.fromkeys(names))
