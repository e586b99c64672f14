"""Runs the benchmark: `python -m engine_bench [CASE ...]`, with tests/bench on the path."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import msgspec
import numpy as np
from rich.console import Console

from edge_wm.benchmark import int8_peak
from edge_wm.errors import EdgeWmError
from engine_bench import accuracy, budget, machine, memory, native_engine, peers, planning
from engine_bench.case import Case
from engine_bench.cases import CASES
from engine_bench.clock import race
from engine_bench.imagination import Engine
from engine_bench.peers import Competitor
from engine_bench.picture import draw
from engine_bench.results import Report, Row, row
from engine_bench.table import print_report

FINE, MISSED, USAGE, VOID = 0, 1, 2, 3
PICTURE = Path("build/bench/engine.png")
TOLERANCE = 1e-3  # of a fp32 competitor, over the largest of the reference's numbers


def main() -> int:
    options = _options()
    talk = Console(stderr=True)
    if options.memory_of:
        return _memory_child(*options.memory_of)
    names = options.cases or list(CASES)
    wanted = None
    if options.budget:
        try:
            wanted = budget.read_budget(options.budget)
        except (OSError, msgspec.ValidationError, msgspec.DecodeError) as error:
            talk.print(f"{options.budget}: {error}")
            return USAGE
    report = _measured(names, options, talk)
    if options.json:
        print(json.dumps(report.as_json(), indent=1))
    print_report(report, Console(stderr=options.json, width=None if sys.stdout.isatty() else 180))
    options.picture.parent.mkdir(parents=True, exist_ok=True)
    draw(report, options.picture)
    talk.print(f"picture: {options.picture}", highlight=False)
    if wanted is None:
        return FINE
    if report.void:
        return VOID
    missed = list(budget.misses(report, wanted))
    for line in missed:
        print(f"below budget: {line}", file=sys.stderr)
    return MISSED if missed else FINE


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="engine_bench",
        description="Time the native engine and its peers on whole plans, in turns, on one core.",
        epilog="exit codes: 0 fine, 1 below the budget, 2 wrong usage, 3 void (with --budget: the "
        "machine's int8 peak moved by more than 15 %)",
    )
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; all")
    parser.add_argument("--quick", action="store_true", help="2 rounds or 2 s a case, no memory")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each case (60)")
    parser.add_argument(
        "--threads", type=int, default=1, help="and cores; over 1, wall time counts"
    )
    parser.add_argument("--json", action="store_true", help="results to stdout, talk to stderr")
    parser.add_argument("--budget", type=Path, help="YAML or JSON that the run must reach")
    parser.add_argument("--picture", type=Path, default=PICTURE, help=f"PNG ({PICTURE})")
    parser.add_argument("--memory-of", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    for name in options.cases:
        if name not in CASES:
            parser.error(f"no case {name!r}; the cases are {', '.join(CASES)}")
    return options


def _measured(names: list[str], options: argparse.Namespace, talk: Console) -> Report:
    core = machine.pin(options.threads)
    before = int8_peak()
    rows: list[Row] = []
    titles, absent = {}, {}
    for name in names:
        case = CASES[name]()
        titles[name] = case.title
        talk.print(f"{case.title} …", highlight=False)
        found, absent[name] = _one_case(case, options, before, talk)
        rows += found
    after = int8_peak()
    return Report(
        processor=machine.processor(),
        instruction_sets=machine.instruction_sets(),
        gate=machine.gate(),
        core=core,
        threads=options.threads,
        peak_before=before,
        peak_after=after,
        void=machine.moved(before, after),
        titles=titles,
        rows=tuple(rows),
        absent=absent,
    )


def _one_case(
    case: Case, options: argparse.Namespace, peak: float | None, talk: Console
) -> tuple[list[Row], dict[str, str]]:
    """Build, check, compare, time, weigh: every competitor of one case."""
    contenders, absent = _contenders(case, options.threads)
    reference = peers.reference(case)
    engines: dict[str, Engine] = {}
    accuracies: dict[str, dict[str, float]] = {}
    for contender in list(contenders):
        try:
            engine = contender.build()
            problem = _wrong(case, contender, reference, engine)
        except (ImportError, EdgeWmError) as error:
            problem = f"{type(error).__name__}: {error}"
        if problem:
            absent[contender.name] = f"not run: {problem}"
            contenders.remove(contender)
            continue
        engines[contender.name] = engine
        # int8 peers in their best form show what int8 costs elsewhere.
        peer = contender.form == "best form" and contender.precision != "fp32"
        if contender.library == native_engine.NAME or (peer and not options.quick):
            accuracies[contender.name] = accuracy.compare(case, reference, engine)
    seconds, rounds = (2.0, (2, 100)) if options.quick else (options.seconds, (8, 2000))
    times = race(
        {n: lambda seed, e=engine: planning.work(case, e, seed) for n, engine in engines.items()},
        seconds,
        rounds,
    )
    rows = []
    for contender in contenders:
        grown = None if options.quick else memory.growth_mib(case, contender)
        rows.append(
            row(
                case.name,
                (contender.library, contender.precision, contender.form),
                times[contender.name],
                case.macs,
                peak,
                grown,
                accuracies.get(contender.name, {}),
                wall=options.threads > 1,
            )
        )
    return rows, absent


def _contenders(case: Case, threads: int) -> tuple[list[Competitor], dict[str, str]]:
    """The native engine and its peers."""
    ours = [
        Competitor(
            native_engine.NAME,
            precision,
            "",
            lambda p=precision: native_engine.load(case, p, threads),
        )
        for precision in (("int8", "fp32") if case.int8 else ("fp32",))
    ]
    others, absent = peers.competitors(case, threads)
    return ours + others, absent


def _wrong(case: Case, contender: Competitor, reference: Engine, engine: Engine) -> str | None:
    """Why a competitor may not be timed: in fp32 it must give the reference's numbers."""
    if case.work == "encode":
        true, found = reference.encode(), engine.encode()
    else:
        drawn = case.actions(3), case.noises(3)
        true, found = reference.rollout(*drawn).cost, engine.rollout(*drawn).cost
    if np.isnan(found).any():
        return "it gives NaN"
    if contender.precision != "fp32":
        return None
    good = np.isfinite(true)
    if not (good == np.isfinite(found)).all():
        return "what it finds infeasible is not what the reference does"
    error = float(
        np.abs(true[good] - found[good]).max() / max(1.0, float(np.abs(true[good]).max()))
    )
    return None if error <= TOLERANCE else f"its results are off by {error:.2g}"


def _memory_child(case_name: str, competitor_name: str) -> int:
    case = CASES[case_name]()
    machine.pin(1)
    for contender in _contenders(case, 1)[0]:
        if contender.name == competitor_name:
            print(memory.measure_mib(case, contender))
            return FINE
    return USAGE


if __name__ == "__main__":
    sys.exit(main())
