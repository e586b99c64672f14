"""firmware_bridge.session: what is said when a device does not answer as it should, word for word.

The other end here is a list of bytes, not a device: what a working device does is tested with the
firmware itself (test_emulated.py).
"""

from __future__ import annotations

import contextlib
import socket
import threading

import pytest

import edge_wm
from edge_wm.errors import DeviceRefusal, LinkError
from edge_wm.reasons import Reason
from firmware_bridge import session as sessions
from firmware_bridge.messages import SCHEMA_HASH, Arm, Hello, Identity, Refusal, Status
from firmware_bridge.session import Session, refused
from firmware_bridge.transport import open_transport
from firmware_bridge.wire import Parser, encode


def identity(nonce: int, version: tuple[int, int, int]) -> Identity:
    return Identity(
        nonce, version, bytes(32), b"arm".ljust(16, b"\0"), bytes(12), 1, 0, 1,
        bytes([1, 1, 0, 0, 0, 0, 0, 0]), 250_000, 0,
    )  # fmt: skip


@pytest.fixture
def talk(tmp_path):
    """Runs `answer(message) -> bytes` at the other end; gives a session that was not opened."""
    with contextlib.ExitStack() as stack:

        def begin(answer) -> Session:
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(f"{tmp_path}/s")
            listener.listen()
            transport = open_transport(f"unix:{tmp_path}/s", 0)
            peer, _ = listener.accept()

            def serve() -> None:
                parser = Parser()
                with peer:
                    while data := peer.recv(4096):
                        for frame in parser.feed(data):
                            peer.sendall(answer(frame))

            thread = threading.Thread(target=serve)
            thread.start()
            stack.callback(thread.join)
            stack.callback(transport.close)
            return Session(transport)

        begin.port = f"unix:{tmp_path}/s"
        yield begin


def test_silence(talk):
    session = talk(lambda frame: b"")
    with pytest.raises(LinkError) as caught:
        session.hello(within_s=0.3)
    assert str(caught.value) == (
        f"port {talk.port}: no answer within 0.3 s; check power and cable, that this is the right "
        "port, and that the board runs edge-wm's firmware"
    )


def test_noise(talk):
    session = talk(lambda frame: b"hello, this is a shell\r\n")
    with pytest.raises(LinkError) as caught:
        session.hello(within_s=0.2)
    assert str(caught.value) == (
        f"port {talk.port}: 24 bytes came, but no answer to Hello within 0.2 s; check that --baud "
        "is the firmware's, and that this is the right port"
    )


OURS = tuple(int(part) for part in edge_wm.__version__.split("."))


@pytest.mark.parametrize(
    ("version", "advice"),
    [
        ((0, 0, 9), "; the firmware is older: update it"),
        ((99, 0, 0), "; edge-wm is older: update it"),
        (OURS, " under the same version; build the firmware from this checkout"),
    ],
)
def test_another_schema_says_who_is_older(talk, version, advice):
    def answer(frame) -> bytes:
        return encode(
            identity(frame.message.nonce, version), session_id=3, sequence=1, schema_hash=0x1234
        )

    session = talk(answer)
    with pytest.raises(LinkError) as caught:
        session.hello()
    assert str(caught.value) == (
        f"port {talk.port}: the firmware ({'.'.join(map(str, version))}, schema 0x00001234) and "
        f"this edge-wm ({edge_wm.__version__}, schema 0x{SCHEMA_HASH:08x}) speak different "
        f"messages{advice}"
    )


def test_a_refused_hello_of_another_schema(talk):
    refusal = Refusal(Hello.ID, 1, Reason.link_wrong_schema, 255, 0, 0)
    session = talk(lambda frame: encode(refusal, session_id=0, sequence=1, schema_hash=0x1234))
    with pytest.raises(LinkError) as caught:
        session.hello(within_s=0.2)
    assert str(caught.value) == (
        f"port {talk.port}: the device speaks schema 0x00001234, this edge-wm "
        f"0x{SCHEMA_HASH:08x}; install firmware and edge-wm of the same release"
    )


def test_an_old_answer_is_not_taken_for_a_new_one(talk):
    """An Identity that repeats another Hello's nonce belongs to a session that has ended."""
    session = talk(
        lambda frame: encode(identity(frame.message.nonce ^ 1, OURS), session_id=3, sequence=1)
    )
    with pytest.raises(LinkError, match="but no answer to Hello within"):
        session.hello(within_s=0.2)


def opened(talk, answer) -> Session:
    def serve(frame) -> bytes:
        if isinstance(frame.message, Hello):
            return encode(identity(frame.message.nonce, OURS), session_id=3, sequence=1)
        return answer(frame)

    session = talk(serve)
    session.hello()
    return session


def test_a_device_that_says_hello_and_nothing_more(talk, monkeypatch):
    monkeypatch.setattr(sessions, "ANSWER_WITHIN_S", 0.02)
    session = opened(talk, lambda frame: b"")
    with pytest.raises(LinkError) as caught:
        session.agree_clock()
    assert str(caught.value) == (
        f"port {talk.port}: 17 of 17 requests for the device's clock got no answer; look for a "
        "loose cable or a wrong baud rate"
    )
    with pytest.raises(LinkError) as caught:
        session._exchange(Arm(0, 0, 0), lambda heard: None, within_s=0.02)
    assert str(caught.value) == (
        f"port {talk.port}: no answer to Arm within 0.08 s although the device said hello; look "
        "for a loose cable or a second program on the port, and connect again"
    )
    with pytest.raises(LinkError) as caught:
        session.newest_status(within_s=0.05)
    assert str(caught.value) == (
        f"port {talk.port}: the device sends no Status within 0.05 s although the session is open; "
        "look for a second program on the port"
    )


def test_what_repeats_or_belongs_elsewhere_is_ignored_and_counted(talk):
    rest = Status.unpack(bytes(Status.SIZE))

    def answer(frame) -> bytes:
        return b"".join(
            encode(rest, session_id=session_id, sequence=sequence)
            for session_id, sequence in ((3, 5), (3, 5), (3, 4), (2, 6), (3, 7))
        )

    session = opened(talk, answer)
    session.ask_clock()
    heard = []
    while len(heard) < 2:
        heard += session.hear(1.0)
    assert session.counts.repeated == 2
    assert session.counts.other_session == 1


@pytest.mark.parametrize(
    ("refusal", "told"),
    [
        (
            Refusal(Arm.ID, 1, Reason.link_overloaded, 255, 700, 600),
            "link_overloaded (asked 700, limit 600). The link would carry more than 60 % of what "
            "it can, so the device may not be armed. Raise the baud rate, or lower "
            "setpoint_rate_hz in the robot file.",
        ),
        (
            Refusal(Arm.ID, 1, Reason.limits_impossible, 2, 9, 0),
            "limits_impossible (asked 9, limit 0, axis 2). The limits that were asked for cannot "
            "be held, so the device refused them. Compare the robot file's axes and limits with "
            "the board's own.",
        ),
        (
            Refusal(Arm.ID, 1, Reason.sensor_lost, 1, 0, 0),
            "sensor_lost (axis 1). A motor's sensor has stopped answering. Check the sensor's "
            "cable and supply.",
        ),
    ],
)
def test_a_refusal_is_a_sentence(refusal, told):
    error = refused("/dev/x", Arm(0, 0, 0), refusal)
    assert isinstance(error, DeviceRefusal)
    assert str(error) == f"port /dev/x: the device refuses Arm: {told}"


def test_a_reason_of_a_newer_table():
    assert str(refused("/dev/x", Arm(0, 0, 0), Refusal(7, 1, 64_000, 255, 0, 0))) == (
        "port /dev/x: the device refuses Arm for reason 64000, which this edge-wm does not know; "
        "update edge-wm"
    )
