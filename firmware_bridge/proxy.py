"""A link that damages: a man in the middle, byte by byte, seeded.

    host ── unix:PROXY ── FaultProxy ── unix:DEVICE ── board

What each fault does to the bytes of one direction:

    flip       one bit of a piece       burst      up to 16 bytes in a row become noise
    drop       a piece is gone          duplicate  a piece comes twice
    reorder    a piece comes after the next one
    delay      a piece comes up to 40 ms late, and what follows it too
    flood      up to 4,096 bytes of noise come before a piece
    replay     an older piece of this direction comes again
    cut        (by `pull()`) nothing passes any more, in both directions, until `plug()`

A piece is what one read returned, cut into stretches of up to 64 bytes: faults fall in the middle
of frames as well as between them. The choice of faults follows from the seed and the pieces; what
the operating system makes pieces of does not.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from pathlib import Path

KINDS = ("flip", "burst", "drop", "duplicate", "reorder", "delay", "flood", "replay")
PIECE = 64
POLL_S = 0.01
LATEST_S = 0.04


class FaultProxy:
    """Listens at `listen`, connects to `device` for each host that comes; a context manager.

    rates: share of the pieces, 0..1, that each kind of fault befalls; empty: a clean wire.
    """

    def __init__(
        self,
        listen: Path,
        device: Path,
        rates: Mapping[str, float],
        seed: int = 0,
        directions: Sequence[str] = ("up", "down"),
    ) -> None:
        unknown = set(rates) - set(KINDS)
        if unknown:
            raise ValueError(f"a fault must be one of {', '.join(KINDS)}, got {sorted(unknown)}")
        self.rates = dict(rates)
        self.done: Counter[str] = Counter()  # faults that were made
        self.passed: Counter[str] = Counter()  # bytes by direction: up (to the device), down
        self._device = device
        self._directions = directions
        self._noise = random.Random(seed)
        self._pulled = threading.Event()
        self._end = threading.Event()
        self._listener = socket.socket(socket.AF_UNIX)
        listen.unlink(missing_ok=True)
        self._listener.bind(os.fspath(listen))
        self._listener.listen(4)
        self._listener.settimeout(0.05)
        self._thread = threading.Thread(target=self._accept, name="fault-proxy", daemon=True)

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(timeout=5.0)
        self._listener.close()

    def pull(self) -> None:
        """Pull the cable: bytes get lost in both directions, nobody is told."""
        self._pulled.set()

    def plug(self) -> None:
        """Put the cable back."""
        self._pulled.clear()

    def _accept(self) -> None:
        while not self._end.is_set():
            with contextlib.suppress(TimeoutError):
                host, _ = self._listener.accept()
                device = socket.socket(socket.AF_UNIX)
                with host, device, contextlib.suppress(OSError):
                    device.connect(os.fspath(self._device))
                    self._serve(host, device)

    def _serve(self, host: socket.socket, device: socket.socket) -> None:
        ways = {
            host: _Way("up", device, self._noise, self),
            device: _Way("down", host, self._noise, self),
        }
        while not self._end.is_set():
            ready, _, _ = select.select([host, device], [], [], POLL_S)
            for source in ready:
                data = source.recv(4096)
                if not data:
                    return
                way = ways[source]
                if self._pulled.is_set():
                    self.done["cut"] += 1
                    continue
                self.passed[way.name] += len(data)
                way.take(data, damage=way.name in self._directions)
            for way in ways.values():
                way.deliver()


class _Way:
    """One direction: pieces in, damaged pieces out."""

    def __init__(
        self, name: str, out: socket.socket, noise: random.Random, proxy: FaultProxy
    ) -> None:
        self.name = name
        self._out = out
        self._noise = noise
        self._proxy = proxy
        self._waiting: deque[tuple[float, bytes]] = deque()  # (not before, bytes), in order
        self._late = 0.0
        self._held: bytes | None = None  # to come after the next piece
        self._seen: deque[bytes] = deque(maxlen=64)

    def take(self, data: bytes, damage: bool) -> None:
        for start in range(0, len(data), PIECE):
            piece = data[start : start + PIECE]
            self._seen.append(piece)
            for part in self._damaged(piece) if damage else [piece]:
                self._waiting.append((self._late, part))

    def deliver(self) -> None:
        now = time.monotonic()
        while self._waiting and self._waiting[0][0] <= now:
            self._out.sendall(self._waiting.popleft()[1])

    def _damaged(self, piece: bytes) -> list[bytes]:
        noise, changed, parts = self._noise, bytearray(piece), []
        if self._hit("flip"):
            changed[noise.randrange(len(changed))] ^= 1 << noise.randrange(8)
        if self._hit("burst"):
            start, length = noise.randrange(len(changed)), noise.randint(1, 16)
            changed[start : start + length] = noise.randbytes(len(changed[start : start + length]))
        if self._hit("flood"):
            parts.append(noise.randbytes(noise.randint(1, 4096)))
        if self._hit("replay"):
            parts.append(noise.choice(self._seen))
        if self._hit("delay"):
            self._late = time.monotonic() + noise.uniform(0.0, LATEST_S)
        whole = bytes(changed)
        if self._held is None and self._hit("reorder"):
            self._held = whole
            return parts
        if not self._hit("drop"):
            parts.append(whole)
        if self._hit("duplicate"):
            parts.append(whole)
        if self._held is not None:
            parts.append(self._held)
            self._held = None
        return parts

    def _hit(self, kind: str) -> bool:
        hit = self._noise.random() < self._proxy.rates.get(kind, 0.0)
        self._proxy.done[kind] += hit
        return hit
