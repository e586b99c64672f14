"""firmware_bridge.proxy: it does the damage that it counts, and damage never passes for a frame.

Numbered pings go through the proxy to a parser; what the parser gives out is compared with what
was sent, byte for byte.
"""

from __future__ import annotations

import contextlib
import random
import select
import socket
import time

import pytest

from firmware_bridge.messages import Ping
from firmware_bridge.proxy import KINDS, FaultProxy
from firmware_bridge.wire import Parser, encode

FRAMES = 3000


def data_of(number: int) -> bytes:
    return random.Random(number).randbytes(35)


@contextlib.contextmanager
def through(tmp_path, rates, seed=1):
    """(proxy, host's socket, device's socket)."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{tmp_path}/d")
        listener.listen()
        proxy = FaultProxy(tmp_path / "p", tmp_path / "d", rates, seed)
        with proxy, socket.socket(socket.AF_UNIX) as host:
            host.connect(f"{tmp_path}/p")
            device, _ = listener.accept()
            with device:
                yield proxy, host, device


def pour(host, device, frames=FRAMES):
    """Send numbered pings; everything that arrives at the device."""
    parser, got = Parser(), []

    def drain(wait_s: float) -> bool:
        if not select.select([device], [], [], wait_s)[0]:
            return False
        got.extend(parser.feed(device.recv(65536)))
        return True

    for number in range(1, frames + 1):
        while not select.select([], [host], [], 0)[1]:  # what was delayed comes all at once
            drain(0.01)
        host.sendall(encode(Ping(data_of(number)), session_id=1, sequence=number))
        if number % 20 == 0:
            drain(0.0)
    while drain(0.3):
        pass
    return parser, got


def test_a_clean_wire_loses_nothing(tmp_path):
    with through(tmp_path, {}) as (proxy, host, device):
        parser, got = pour(host, device, 500)
        assert [frame.header.sequence for frame in got] == list(range(1, 501))
        assert parser.counters.damaged == 0
        device.sendall(b"back")
        assert host.recv(10) == b"back"
        assert sum(proxy.done.values()) == 0
        assert proxy.passed["up"] == 500 * 64


@pytest.mark.parametrize("kind", KINDS)
def test_no_fault_makes_a_wrong_frame(tmp_path, kind):
    rate = 0.002 if kind == "delay" else 0.05
    with through(tmp_path, {kind: rate}) as (proxy, host, device):
        _, got = pour(host, device, 1000)
    assert proxy.done[kind] > 0
    for frame in got:
        assert frame.message == Ping(data_of(frame.header.sequence))
    numbers = [frame.header.sequence for frame in got]
    if kind == "delay":
        assert numbers == list(range(1, 1001))
    else:  # a fault in a piece touches that frame, and the one beside it at most
        assert len(set(numbers)) >= 1000 - 2 * (proxy.done[kind] + 1)


def test_all_faults_together(tmp_path):
    rates = dict.fromkeys(KINDS, 0.02) | {"delay": 0.001}
    with through(tmp_path, rates, seed=9) as (proxy, host, device):
        parser, got = pour(host, device)
    wrong = [f for f in got if f.message != Ping(data_of(f.header.sequence))]
    assert wrong == []
    assert parser.counters.damaged > 50
    assert all(proxy.done[kind] for kind in KINDS)
    assert len(got) > FRAMES * 0.7


def test_a_pulled_cable_is_silent_and_heals(tmp_path):
    with through(tmp_path, {}) as (proxy, host, device):
        proxy.pull()
        host.sendall(b"lost")
        time.sleep(0.1)
        assert not select.select([device], [], [], 0)[0]
        assert proxy.done["cut"] == 1
        proxy.plug()
        host.sendall(b"here")
        assert device.recv(10) == b"here"


def test_the_same_seed_makes_the_same_faults():
    """On the same pieces: the way is fed by hand, without the operating system between."""
    from firmware_bridge.proxy import _Way

    def run(seed: int) -> list[bytes]:
        class Rates:
            rates = dict.fromkeys(KINDS, 0.1) | {"delay": 0.0}
            done = dict.fromkeys(KINDS, 0)

        left, right = socket.socketpair()
        with left, right:
            way = _Way("up", left, random.Random(seed), Rates())
            for number in range(200):
                way.take(data_of(number), damage=True)
            return [piece for _, piece in way._waiting]

    assert run(3) == run(3) != run(4)


def test_an_unknown_fault_is_refused(tmp_path):
    with pytest.raises(ValueError, match="a fault must be one of flip, burst, drop"):
        FaultProxy(tmp_path / "p", tmp_path / "d", {"melt": 1.0})
