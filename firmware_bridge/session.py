"""One session with a device: HELLO -> CLOCK -> LIMITS -> ARM -> COMMAND stream.

    host                                device
    Hello nonce                    ->
                                   <-   Identity nonce, the new session's id in the header
    ClockRequest  (64 times)       ->
                                   <-   ClockReply
    Limits of the robot file       ->
                                   <-   LimitsReply: the tighter ones, and their CRC
    Arm with that CRC              ->
                                   <-   Status (armed), or Refusal with its reason
    Command, Command, ...          ->
                                   <-   Status every 5 ms

A `Session` is used by one thread. It never sleeps on its own: what waits says for how long. The
invariant: what belongs to another session, repeats, or comes out of order is counted and ignored.
"""

from __future__ import annotations

import secrets
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import edge_wm
from edge_wm.errors import DeviceRefusal, LinkError
from edge_wm.modes import LATCHED
from edge_wm.reasons import EXPLANATIONS, Reason
from firmware_bridge.clock import GROUP, Clock
from firmware_bridge.messages import (
    SCHEMA_HASH,
    Arm,
    ClockReply,
    ClockRequest,
    Disarm,
    FaultQuery,
    FaultRecord,
    Header,
    Hello,
    Identity,
    Limits,
    LimitsReply,
    Message,
    Ping,
    Pong,
    Refusal,
    Reset,
    Status,
)
from firmware_bridge.transport import Transport, wait_readable
from firmware_bridge.wire import Frame, Parser, encode

ANSWER_WITHIN_S = 0.25
TRIES = 4
HELLO_WITHIN_S = 3.0
STOP_WITHIN_S = 5.0  # a disarmed axis has braked by then
NO_AXIS = 255

Answer = TypeVar("Answer", bound=Message)


@dataclass(slots=True)
class Counts:
    """What a session has sent and heard, besides the parser's counters."""

    sent: int = 0
    repeated: int = 0  # frames of the device that came twice or late
    other_session: int = 0
    refusals: Counter[int] = field(default_factory=Counter)  # by reason


class Session:
    """See the head of this file. Made by `open_session`."""

    def __init__(
        self, transport: Transport, clock_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self.transport = transport
        self.parser = Parser()
        self.clock = Clock()
        self.counts = Counts()
        self.identity: Identity | None = None
        self.session_id = 0
        self.limits: LimitsReply | None = None
        self.status: Status | None = None
        self.status_us = 0  # header time of the newest status
        self.heard_ns = 0  # the newest intact frame of this session
        self.now_ns = clock_ns
        self._sequence = 0
        self._heard_sequence = 0
        self._asked: dict[int, int] = {}  # clock token -> sent ns
        self._statuses: deque[Status] = deque(maxlen=256)  # since the last take_statuses
        self._foreign: Header | None = None  # of an answer in another schema
        self._opened: tuple[Header, Identity] | None = None  # the newest answer to Hello

    # ---- saying and hearing -----------------------------------------------------------------
    def send(self, message: Message) -> int:
        """Send `message` in this session; returns its sequence number."""
        self._sequence += 1
        frame = encode(message, session_id=self.session_id, sequence=self._sequence)
        self.transport.write(frame)
        self.counts.sent += 1
        return self._sequence

    def hear(self, wait_s: float = 0.0) -> list[Message]:
        """What has arrived for this session, waiting at most `wait_s` for the first byte."""
        if wait_s > 0 and not wait_readable(self.transport, wait_s):
            return []
        data = self.transport.read()
        heard_ns = self.now_ns()
        messages = []
        for frame in self.parser.feed(data) if data else []:
            if self._mine(frame) and frame.message is not None:
                self.heard_ns = heard_ns
                self._note(frame.header, frame.message, heard_ns)
                messages.append(frame.message)
        return messages

    def take_statuses(self) -> list[Status]:
        """The statuses since the last call, oldest first."""
        taken = list(self._statuses)
        self._statuses.clear()
        return taken

    def _mine(self, frame: Frame) -> bool:
        header = frame.header
        if header.schema_hash != SCHEMA_HASH:
            self._foreign = header
        if isinstance(frame.message, Identity):
            return True  # hello() looks at its nonce
        if header.session_id != self.session_id:
            self.counts.other_session += 1
            return False
        if header.sequence <= self._heard_sequence:
            self.counts.repeated += 1
            return False
        self._heard_sequence = header.sequence
        return True

    def _note(self, header: Header, message: Message, heard_ns: int) -> None:
        if isinstance(message, Status):
            self.status, self.status_us = message, header.device_us
            self._statuses.append(message)
        elif isinstance(message, ClockReply):
            sent_ns = self._asked.pop(message.token, None)
            if sent_ns is not None:
                self.clock.add(sent_ns, message.received_us, header.device_us, heard_ns)
        elif isinstance(message, Refusal):
            self.counts.refusals[message.reason] += 1
        elif isinstance(message, Identity):
            self._opened = (header, message)

    def _exchange(
        self,
        message: Message,
        wanted: Callable[[Message], Answer | None],
        *,
        within_s: float = ANSWER_WITHIN_S,
        tries: int = TRIES,
    ) -> Answer:
        """Send `message` until it is answered: by what `wanted` takes, or by a Refusal."""
        for _ in range(tries):
            sequence = self.send(message)
            until = time.monotonic() + within_s
            while (left := until - time.monotonic()) > 0:
                for heard in self.hear(left):
                    if isinstance(heard, Refusal) and heard.sequence == sequence:
                        raise refused(self.transport.name, message, heard)
                    answer = wanted(heard)
                    if answer is not None:
                        return answer
        raise LinkError(
            f"port {self.transport.name}: no answer to {type(message).__name__} within "
            f"{within_s * tries:g} s although the device said hello; look for a loose cable or a "
            "second program on the port, and connect again"
        )

    # ---- the steps --------------------------------------------------------------------------
    def hello(self, within_s: float = HELLO_WITHIN_S) -> Identity:
        """Open a new session; a moving device brakes.

        Raises: LinkError if nothing answers, or something that speaks another schema.
        """
        until = time.monotonic() + within_s
        heard_bytes = self.parser.counters.bytes
        while (left := until - time.monotonic()) > 0:
            nonce = secrets.randbits(32)
            self.session_id, self._sequence = 0, 0
            self._opened = None
            self.send(Hello(nonce))
            retry = time.monotonic() + min(left, ANSWER_WITHIN_S)
            while (left := retry - time.monotonic()) > 0:
                self.hear(left)
                if self._opened is None or self._opened[1].nonce != nonce:
                    continue
                header, identity = self._opened
                if header.schema_hash != SCHEMA_HASH:
                    raise wrong_schema(self.transport.name, header, identity)
                self.session_id = header.session_id
                self._heard_sequence = header.sequence
                self.identity, self.limits, self.status = identity, None, None
                self.clock, self._asked = Clock(), {}
                self._statuses.clear()
                return identity
        if self._foreign is not None:
            raise wrong_schema(self.transport.name, self._foreign, None)
        raise no_answer(self.transport.name, self.parser.counters.bytes - heard_bytes, within_s)

    def ask_clock(self) -> None:
        """Ask for the device's time; the answer is taken when it is heard."""
        token = secrets.randbits(32)
        if len(self._asked) > 2 * GROUP:  # unanswered ones
            self._asked.clear()
        self._asked[token] = self.now_ns()
        self.send(ClockRequest(token))

    def agree_clock(self, exchanges: int = GROUP) -> None:
        """Learn the device's clock from `exchanges` round trips.

        Raises: LinkError if a quarter of them stays without an answer.
        """
        lost = 0
        while self.clock.exchanges < exchanges:
            known = self.clock.exchanges
            self.ask_clock()
            until = time.monotonic() + ANSWER_WITHIN_S
            while self.clock.exchanges == known and (left := until - time.monotonic()) > 0:
                self.hear(left)
            lost += self.clock.exchanges == known
            if 4 * lost > exchanges:
                raise LinkError(
                    f"port {self.transport.name}: {lost} of {lost + known} requests for the "
                    "device's clock got no answer; look for a loose cable or a wrong baud rate"
                )

    def agree_limits(self, limits: Limits) -> LimitsReply:
        """Give the device the robot file's limits; the answer is what it will hold to.

        Raises: DeviceRefusal if it cannot hold them, or is armed.
        """
        self.limits = self._exchange(limits, _one_of(LimitsReply))
        return self.limits

    def clock_error_us(self) -> int:
        """The bound of the clock's error now, rounded up; as Arm carries it."""
        return min(int(self.clock.error_us(self.now_ns())) + 1, 0xFFFFFFFF)

    def arm(self, link_load_permille: int) -> Status:
        """Torque on; the device holds at rest until commands come.

        Raises: DeviceRefusal with the device's reason.
        """
        crc = self.limits.crc if self.limits else 0
        message = Arm(crc, self.clock_error_us(), link_load_permille)
        return self._exchange(message, _status_where(lambda s: bool(s.flags & Status.ARMED)))

    def disarm(self) -> Status:
        """Brake, then torque off; returns when the torque is off."""
        off = _status_where(lambda s: not s.flags & (Status.ARMED | Status.TORQUE_ENABLED))
        return self._exchange(Disarm(), off, within_s=STOP_WITHIN_S / TRIES)

    def reset(self, reason: Reason) -> Status:
        """Release the latched fault `reason`. Nothing is armed by that.

        Raises: DeviceRefusal if another one is latched, or its cause lasts.
        """
        return self._exchange(Reset(reason), _status_where(lambda s: s.mode not in LATCHED))

    def fault(self, index: int) -> FaultRecord:
        """Fault record `index`, 0 being the newest."""

        def wanted(heard: Message) -> FaultRecord | None:
            return heard if isinstance(heard, FaultRecord) and heard.index == index else None

        return self._exchange(FaultQuery(index), wanted)

    def faults(self) -> list[FaultRecord]:
        """All fault records, the newest first."""
        first = self.fault(0)
        return [first if index == 0 else self.fault(index) for index in range(first.count)]

    def newest_status(self, within_s: float = 1.0) -> Status:
        """The next status that the device sends.

        Raises: LinkError if none comes.
        """
        self._statuses.clear()
        until = time.monotonic() + within_s
        while (left := until - time.monotonic()) > 0:
            self.hear(left)
            if self._statuses:
                return self._statuses[-1]
        raise LinkError(
            f"port {self.transport.name}: the device sends no Status within {within_s:g} s "
            "although the session is open; look for a second program on the port"
        )

    def ping(self, data: bytes) -> int:
        """The round trip of a 64-byte frame, ns."""
        begun = time.perf_counter_ns()

        def wanted(heard: Message) -> Pong | None:
            return heard if isinstance(heard, Pong) and heard.data == data else None

        self._exchange(Ping(data), wanted)
        return time.perf_counter_ns() - begun


def open_session(transport: Transport, clock_ns: Callable[[], int] = time.monotonic_ns) -> Session:
    """HELLO and CLOCK on an open transport."""
    session = Session(transport, clock_ns)
    session.hello()
    session.agree_clock()
    return session


def _one_of(kind: type[Answer]) -> Callable[[Message], Answer | None]:
    return lambda heard: heard if isinstance(heard, kind) else None


def _status_where(holds: Callable[[Status], bool]) -> Callable[[Message], Status | None]:
    return lambda heard: heard if isinstance(heard, Status) and holds(heard) else None


# ---- what can be wrong, in one sentence each ------------------------------------------------
def no_answer(port: str, heard_bytes: int, within_s: float) -> LinkError:
    """Nothing that makes sense came back."""
    if heard_bytes:
        return LinkError(
            f"port {port}: {heard_bytes} bytes came, but no answer to Hello within {within_s:g} s; "
            "check that --baud is the firmware's, and that this is the right port"
        )
    return LinkError(
        f"port {port}: no answer within {within_s:g} s; check power and cable, that this is the "
        "right port, and that the board runs edge-wm's firmware"
    )


def wrong_schema(port: str, header: Header, identity: Identity | None) -> LinkError:
    """The two ends come from different releases: which one is older?"""
    if identity is None:
        return LinkError(
            f"port {port}: the device speaks schema 0x{header.schema_hash:08x}, this edge-wm "
            f"0x{SCHEMA_HASH:08x}; install firmware and edge-wm of the same release"
        )
    theirs = tuple(identity.firmware_version)
    ours = tuple(int(part) for part in edge_wm.__version__.split(".")[:3])
    found = (
        f"port {port}: the firmware ({'.'.join(map(str, theirs))}, schema "
        f"0x{header.schema_hash:08x}) and this edge-wm ({edge_wm.__version__}, schema "
        f"0x{SCHEMA_HASH:08x}) speak different messages"
    )
    if theirs < ours:
        return LinkError(f"{found}; the firmware is older: update it")
    if theirs > ours:
        return LinkError(f"{found}; edge-wm is older: update it")
    return LinkError(f"{found} under the same version; build the firmware from this checkout")


def latched_by(status: Status) -> Reason | None:
    """The reason that is latched; None if nothing is."""
    return reason_of(status.reason) if status.mode in LATCHED else None


def reason_of(number: int) -> Reason | None:
    """The reason of that number; None for 0 and for numbers of a newer table."""
    try:
        return Reason(number)
    except ValueError:
        return None


def refused(port: str, message: Message, refusal: Refusal) -> DeviceRefusal:
    """A refusal as a sentence: what, why, and what to do."""
    reason = reason_of(refusal.reason)
    what = f"port {port}: the device refuses {type(message).__name__}"
    if reason is None:
        return DeviceRefusal(
            f"{what} for reason {refusal.reason}, which this edge-wm does not know; update edge-wm"
        )
    where = "" if refusal.axis == NO_AXIS else f", axis {refusal.axis}"
    numbers = ""
    if refusal.value or refusal.limit:
        numbers = f" (asked {refusal.value}, limit {refusal.limit}{where})"
    elif where:
        numbers = f" ({where[2:]})"
    explanation = EXPLANATIONS[reason]
    return DeviceRefusal(
        f"{what}: {reason.name}{numbers}. {explanation.sentence} {explanation.check}"
    )
