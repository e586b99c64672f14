"""`edge-wm link`: look at a board, release its faults, try its motors at rest."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from edge_wm.errors import EdgeWmError, UsageError
from edge_wm.modes import Mode
from edge_wm.reasons import EXPLANATIONS, Reason
from edge_wm.robot import find_robot, load_robot
from firmware_bridge.conversion import board_name, limits_of
from firmware_bridge.emulated import BOARDS, EmulatedBoard
from firmware_bridge.hil.bench import Bench
from firmware_bridge.link import link_to, serial_link
from firmware_bridge.messages import FaultRecord, Identity, LimitsReply, Status
from firmware_bridge.session import NO_AXIS, Session, latched_by, open_session, reason_of
from firmware_bridge.transport import open_transport

EPILOG = (
    "Exit codes: 0 ok, 1 failed (no such port, no answer), 2 wrong usage, 3 refused by the device."
)
app = typer.Typer(
    help="Look at a board, release its faults, try its motors at rest.",
    epilog=EPILOG,
    no_args_is_help=True,
)

Port = Annotated[
    str | None,
    typer.Option("--port", help="A device file, unix:PATH or tcp:HOST:PORT; else the robot's."),
]
Baud = Annotated[int, typer.Option(help="Bits per second on a wire.")]
Emulated = Annotated[
    str | None,
    typer.Option("--emulated", help=f"Start the firmware here: {' or '.join(BOARDS)}."),
]
RobotName = Annotated[
    str | None, typer.Option("--robot", help="A robot file, or the name of a shipped robot.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

RESET_CAUSES = {
    Identity.RESET_POWER_ON: "power on",
    Identity.RESET_PIN: "reset pin",
    Identity.RESET_SOFTWARE: "software",
    Identity.RESET_WATCHDOG: "watchdog",
    Identity.RESET_HARD_FAULT: "hard fault",
    Identity.RESET_STACK_OVERFLOW: "stack overflow",
    Identity.RESET_HANG: "hang",
}
AXIS_UNITS = {
    Identity.AXIS_POSITION_ROTARY: "rad",
    Identity.AXIS_POSITION_LINEAR: "m",
    Identity.AXIS_VELOCITY_ROTARY: "rad",
    Identity.AXIS_VELOCITY_LINEAR: "m",
}


@contextmanager
def chosen_port(port: str | None, emulated: str | None, robot: str | None) -> Iterator[str]:
    """The port that the options mean; starts and ends the emulated board.

    Raises: UsageError if both or none are given.
    """
    if port is not None and emulated is not None:
        raise UsageError("--port and --emulated: give one of them; which board do you mean?")
    if emulated is not None:
        with EmulatedBoard(emulated) as board:
            yield board.port
    elif port is not None:
        yield port
    elif robot is not None:
        yield serial_link(load_robot(find_robot(robot))).port
    else:
        raise UsageError(
            "which board? Give --port /dev/ttyACM0, --robot NAME whose file has a serial link, or "
            f"--emulated {BOARDS[0]}"
        )


@contextmanager
def opened(
    port: str | None, baud: int, emulated: str | None, robot: str | None = None
) -> Iterator[Session]:
    """A session with HELLO and CLOCK done."""
    with chosen_port(port, emulated, robot) as name:
        transport = open_transport(name, baud)
        try:
            yield open_session(transport)
        finally:
            transport.close()


@app.command(epilog=EPILOG)
def status(
    port: Port = None,
    emulated: Emulated = None,
    robot: RobotName = None,
    baud: Baud = 1_000_000,
    as_json: AsJson = False,
) -> None:
    """Show who answers, its clock, and its state; with --robot also the limits that it will hold.

    Opening a session ends the one before it: a moving robot brakes.
    """
    with opened(port, baud, emulated, robot) as session:
        limits = None
        now = session.newest_status()
        if robot is not None:
            loaded = load_robot(find_robot(robot))
            asked = limits_of(loaded, link_to(loaded, session.transport.name))
            limits = session.agree_limits(asked)
        if as_json:
            typer.echo(json.dumps(facts(session, now, limits), indent=2))
        else:
            show(session, now, limits)


@app.command(epilog=EPILOG)
def monitor(
    port: Port = None,
    emulated: Emulated = None,
    robot: RobotName = None,
    baud: Baud = 1_000_000,
    seconds: Annotated[
        float, typer.Option("--for", help="Seconds; 0: until Ctrl-C.", min=0.0)
    ] = 0.0,
    every: Annotated[float, typer.Option(help="Seconds between two lines.", min=0.005)] = 0.2,
    as_json: AsJson = False,
) -> None:
    """Print what the device measures, a line at a time."""
    with opened(port, baud, emulated, robot) as session:
        until = time.monotonic() + seconds if seconds else float("inf")
        while time.monotonic() < until:
            due = time.monotonic() + every
            now = session.newest_status()
            if as_json:
                typer.echo(json.dumps(status_facts(session, now)))
            else:
                typer.echo(line(session, now))
            while (left := min(due, until) - time.monotonic()) > 0:
                session.hear(left)


@app.command(epilog=EPILOG)
def faults(
    port: Port = None,
    emulated: Emulated = None,
    robot: RobotName = None,
    baud: Baud = 1_000_000,
    as_json: AsJson = False,
) -> None:
    """List the device's fault records, the newest first; they survive resets."""
    with opened(port, baud, emulated, robot) as session:
        records = session.faults()
    if as_json:
        typer.echo(json.dumps([fault_facts(record) for record in records], indent=2))
        return
    table = Table("boot", "time", "reason", "axis", "value", "limit", "check")
    for record in records:
        reason = reason_of(record.reason)
        table.add_row(
            str(record.boots),
            f"{record.device_us * 1e-6:.6f} s",
            reason.name if reason else str(record.reason),
            "" if record.axis == NO_AXIS else str(record.axis),
            str(record.value),
            str(record.limit),
            EXPLANATIONS[reason].check if reason else "update edge-wm",
        )
    console = Console(highlight=False)
    if records:
        console.print(table)
    typer.echo(f"{len(records)} fault records")


@app.command(epilog=EPILOG)
def reset(
    reason: Annotated[str, typer.Argument(help="The latched reason, as `link status` names it.")],
    port: Port = None,
    emulated: Emulated = None,
    robot: RobotName = None,
    baud: Baud = 1_000_000,
    as_json: AsJson = False,
) -> None:
    """Release the latched fault REASON, once its cause is mended; nothing is armed by that."""
    if reason not in Reason.__members__:
        raise UsageError(
            f"the reason must be one that `edge-wm explain` lists, got '{reason}'; "
            "`edge-wm link status` names the one that is latched"
        )
    with opened(port, baud, emulated, robot) as session:
        now = session.reset(Reason[reason])
        if as_json:
            typer.echo(json.dumps(status_facts(session, now), indent=2))
        else:
            typer.echo(f"{session.transport.name}: {reason} released, {Mode(now.mode).name}")


@app.command(epilog=EPILOG)
def arm(
    robot: Annotated[str, typer.Option("--robot", help="A robot file, or a shipped robot's name.")],
    port: Port = None,
    emulated: Emulated = None,
    seconds: Annotated[
        float, typer.Option("--for", help="Seconds to hold; 0: until Ctrl-C.", min=0.0)
    ] = 5.0,
    as_json: AsJson = False,
) -> None:
    """Switch the torque on and hold the robot at rest, then disarm; nothing moves."""
    loaded = load_robot(find_robot(robot))
    with chosen_port(port, emulated, robot) as name:
        bench = Bench(loaded, link_to(loaded, name), may_move=False)
        typer.echo(
            f"{name}: torque on for {f'{seconds:g} s' if seconds else 'as long as this runs'}, "
            f"held at rest: {', '.join(axis.name for axis in bench.axes)}",
            err=True,
        )
        try:
            now = _hold(bench, seconds)
            if as_json:
                typer.echo(json.dumps(status_facts(bench.session, now), indent=2))
            else:
                typer.echo(f"{name}: held, disarmed, {Mode(now.mode).name}")
        finally:
            bench.close()


@app.command(epilog=EPILOG)
def disarm(
    port: Port = None,
    emulated: Emulated = None,
    robot: RobotName = None,
    baud: Baud = 1_000_000,
    as_json: AsJson = False,
) -> None:
    """Brake, then torque off; a latched fault stays latched."""
    with opened(port, baud, emulated, robot) as session:
        now = session.disarm()
        if as_json:
            typer.echo(json.dumps(status_facts(session, now), indent=2))
        else:
            typer.echo(f"{session.transport.name}: disarmed, {Mode(now.mode).name}")


def _hold(bench: Bench, seconds: float) -> Status:
    """Arm and hold; returns the status after disarming."""
    bench.agree()
    at_rest = bench.at_rest()
    bench.session.arm(bench.load())
    still = [0.0] * len(bench.axes)
    until = time.monotonic() + seconds if seconds else float("inf")
    try:
        while time.monotonic() < until:
            for _ in bench.play(0.1, still, bench.positions(at_rest)):
                pass
            now = bench.session.newest_status()
            if not now.flags & Status.ARMED:
                raise _disarmed_itself(bench.session.transport.name, now)
    except KeyboardInterrupt:
        pass
    return bench.session.disarm()


def _disarmed_itself(port: str, now: Status) -> EdgeWmError:
    reason = reason_of(now.reason)
    if reason is None:
        return EdgeWmError(
            f"port {port}: the device disarmed itself; look at `edge-wm link faults`"
        )
    why = EXPLANATIONS[reason]
    return EdgeWmError(
        f"port {port}: the device disarmed itself: {reason.name}. {why.sentence} {why.check}"
    )


# ---- what is shown --------------------------------------------------------------------------
def facts(session: Session, now: Status, limits: LimitsReply | None) -> dict[str, Any]:
    """All that `status` knows, as plain values."""
    identity = session.identity
    assert identity is not None
    return {
        "port": session.transport.name,
        "board": board_name(identity),
        "serial": identity.serial.hex(),
        "firmware": ".".join(map(str, identity.firmware_version)),
        "image_sha256": identity.image_sha256.hex(),
        "capabilities": identity.capabilities,
        "reset_cause": RESET_CAUSES.get(identity.reset_cause, str(identity.reset_cause)),
        "boots": identity.boots,
        "dead_man_max_us": identity.dead_man_max_us,
        "clock_error_us": session.clock_error_us(),
        "round_trip_us": min(session.clock.round_trips_us, default=0.0),
        "status": status_facts(session, now),
        "limits": asdict(limits) if limits is not None else None,
    }


def status_facts(session: Session, now: Status) -> dict[str, Any]:
    """One status as plain values: SI, but for what has its unit in its name."""
    identity = session.identity
    assert identity is not None
    reason, last = reason_of(now.reason), reason_of(now.last_refusal)
    return {
        "mode": Mode(now.mode).name,
        "reason": reason.name if reason else None,
        "fault_axis": None if now.fault_axis == NO_AXIS else now.fault_axis,
        "armed": bool(now.flags & Status.ARMED),
        "torque": bool(now.flags & Status.TORQUE_ENABLED),
        "braking": bool(now.flags & Status.BRAKING),
        "estop_open": bool(now.flags & Status.ESTOP_INPUT_OPEN),
        "sampled_us": now.sampled_us,
        "bus_V": now.bus_mV / 1e3,
        "link_load_percent": now.link_load_permille / 10,
        "frames_accepted": now.frames_accepted,
        "frames_damaged": now.frames_damaged,
        "frames_refused": now.frames_refused,
        "last_refusal": last.name if last else None,
        "fault_records": now.fault_records,
        "axes": [
            {
                "position": row.position / 1e6,
                "velocity": row.velocity / 1e6,
                "torque": row.torque / 100,
                "current_A": row.current * 4 / 1e3,
                "temperature_degC": row.temperature / 10,
                "valid": row.flags & 7 == 7,
            }
            for row, kind in zip(now.axis, identity.axis_kind, strict=True)
            if kind != Identity.AXIS_NONE
        ],
    }


def fault_facts(record: FaultRecord) -> dict[str, Any]:
    reason = reason_of(record.reason)
    return {
        "reason": reason.name if reason else record.reason,
        "axis": None if record.axis == NO_AXIS else record.axis,
        "value": record.value,
        "limit": record.limit,
        "boots": record.boots,
        "device_us": record.device_us,
    }


def line(session: Session, now: Status) -> str:
    """One status in one line."""
    told = status_facts(session, now)
    state = told["mode"] + (f" ({told['reason']})" if told["reason"] else "")
    rows = "  ".join(
        f"{index}: {row['position']:+.3f} {row['velocity']:+.3f}/s {row['torque']:+.2f} "
        f"{row['current_A']:.2f} A {row['temperature_degC']:.0f} degC"
        for index, row in enumerate(told["axes"])
    )
    return f"{now.sampled_us * 1e-6:10.3f} s  {state}  {told['bus_V']:.1f} V  {rows}"


def show(session: Session, now: Status, limits: LimitsReply | None) -> None:
    """The page of `link status`."""
    told = facts(session, now, limits)
    state = told["status"]
    console = Console(highlight=False)
    developer = told["capabilities"] & Identity.CAPABILITY_DEVELOPER

    def say(text: str) -> None:
        console.print(text, soft_wrap=True, markup=False)

    say(
        f"{told['board']}, firmware {told['firmware']}, serial {told['serial']}, boot "
        f"{told['boots']} ({told['reset_cause']})"
        + (", accepts developer keys" if developer else "")
    )
    say(
        f"clock known to {told['clock_error_us'] / 1e3:.2f} ms, shortest round trip "
        f"{told['round_trip_us'] / 1e3:.2f} ms, link load {state['link_load_percent']:.1f} %, bus "
        f"{state['bus_V']:.1f} V"
    )
    table = Table("axis", "position", "velocity", "torque", "current", "temperature", "sensors")
    assert session.identity is not None
    for index, row in enumerate(state["axes"]):
        unit = AXIS_UNITS.get(session.identity.axis_kind[index], "?")
        table.add_row(
            str(index),
            f"{row['position']:.3f} {unit}",
            f"{row['velocity']:.3f} {unit}/s",
            f"{row['torque']:.2f} {'N m' if unit == 'rad' else 'N'}",
            f"{row['current_A']:.2f} A",
            f"{row['temperature_degC']:.1f} degC",
            "valid" if row["valid"] else "INVALID",
        )
    console.print(table)
    if limits is not None:
        held = limits.limits
        say(
            f"limits agreed (CRC 0x{limits.crc:08x}): dead man {held.dead_man_us / 1e3:g} ms, bus "
            f"{held.bus_min_mV / 1e3:g} to {held.bus_max_mV / 1e3:g} V"
        )
        for index, row in enumerate(held.axis[: held.axes]):
            say(
                f"  axis {index}: velocity {row.velocity_max / 1e6:g}/s, acceleration "
                f"{row.acceleration_max / 1e6:g}/s2, braking {row.braking / 1e6:g}/s2, torque "
                f"{row.torque_max / 1e3:g}, current {row.current_max / 1e3:g} A, temperature "
                f"{row.temperature_max / 10:g} degC"
            )
    latched = latched_by(now)
    if latched is not None:
        why = EXPLANATIONS[latched]
        say(f"latched: {latched.name}. {why.sentence} {why.check}")
    armed = "armed" if state["armed"] else "disarmed"
    say(f"{told['port']}: {state['mode']}, {armed}, {state['fault_records']} fault records")
