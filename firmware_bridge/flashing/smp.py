"""The bootloader's protocol, SMP, by smpclient on a wire that loses and damages.

    smpclient ── request ──► Wire ── lines of base64 ──► Transport ──► board
                                        between the link's own frames

What smpclient leaves to its caller is done here: a request whose answer was lost or damaged is sent
again as it was, and the next ones are smaller (a message of n bytes survives one fault a kB with
e^-n/730); after a reset an upload goes on at the offset that the board names; a port that vanished
is opened again. The invariant: what the board answered twice is taken once (sequence numbers), and
nothing is sent again that does harm when it is done twice, which only a reset does.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable
from typing import Any

from smp import packet
from smp.exceptions import SMPException
from smpclient import SMPClient
from smpclient.exceptions import SMPClientException, SMPUploadError
from smpclient.generics import error, success
from smpclient.requests.image_management import ImageStatesRead, ImageStatesWrite
from smpclient.requests.os_management import OSApplicationInfoRead, ResetWrite
from smpclient.transport import SMPTransport

from edge_wm.errors import DeviceRefusal, LinkError
from firmware_bridge.session import HELLO_WITHIN_S, Session
from firmware_bridge.transport import Transport, open_transport, wait_readable

LINE = re.compile(rb"(\x06\x09|\x04\x14)[A-Za-z0-9+/=]*\n")
LONGEST_LINE = 128
SMALLEST = 384  # the first message of an upload needs 256 bytes of the image to be resumable
LARGEST = 1024  # the board's buffer (mcu/boot/smp.h)
AGAIN_S, LONGEST_AGAIN_S = 0.1, 0.4  # until a request is sent again; doubled each time
GROWTH = 16  # bytes by which messages grow again after each answer
GIVE_UP_S = 60.0  # without a single answer, or without progress of an upload
POLL_S = 0.002
REOPEN_S = 0.2
RESET_HEARD_S = 0.5
INTERRUPTED_S = 1.0  # without progress: the upload was interrupted there

logging.getLogger("smpclient").setLevel(logging.CRITICAL)  # our words, not its dumps


class Wire(SMPTransport):
    """smpclient's transport on one of ours; damaged lines and late answers are dropped."""

    def __init__(self, port: str, baud: int) -> None:
        self.port, self.baud = port, baud
        self.size = LARGEST  # of a message, bytes
        self.again = True  # whether a request may be sent twice
        self.retries = 0
        self.transport: Transport | None = None
        self._heard = bytearray()
        self._sequence = 0

    async def connect(self, address: str, timeout_s: float) -> None:
        self.open()

    async def disconnect(self) -> None:
        self.close()

    def open(self) -> Transport:
        if self.transport is None:
            self.transport = open_transport(self.port, self.baud)
            self._heard.clear()
        return self.transport

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()
            self.transport = None

    async def send(self, data: bytes) -> None:
        self._sequence = data[6]
        # The zero ends what noise may have begun, a line as well as a frame of the link.
        self.open().write(b"\0" + b"".join(packet.encode(data)))

    async def receive(self) -> bytes:
        transport = self.open()
        decoder: Any = None
        while True:
            for line in self._lines():
                if line.startswith(packet.START_DELIMITER):
                    decoder = packet.decode()
                    next(decoder)
                if decoder is None:
                    continue
                try:
                    decoder.send(line)
                except StopIteration as whole:
                    if len(whole.value) >= 8 and whole.value[6] == self._sequence:
                        return bytes(whole.value)
                    decoder = None
                except (SMPException, ValueError):  # damaged
                    decoder = None
            await asyncio.sleep(POLL_S)
            if wait_readable(transport, 0.0):
                self._heard += transport.read()

    async def send_and_receive(self, data: bytes) -> bytes:
        """Until an answer comes; smpclient ends it when its time is over."""
        wait_s = AGAIN_S
        await self.send(data)
        while self.again:
            try:
                answer = await asyncio.wait_for(self.receive(), wait_s)
            except asyncio.TimeoutError:
                self.retries += 1
                self.size = max(self.size // 2, SMALLEST)
                wait_s = min(2 * wait_s, LONGEST_AGAIN_S)
                await self.send(data)
            else:
                self.size = min(self.size + GROWTH, LARGEST)
                return answer
        return await self.receive()

    def _lines(self) -> list[bytes]:
        """The whole lines that have been heard; what lies between them is the link's."""
        lines, end = [], 0
        for found in LINE.finditer(self._heard):
            lines.append(found.group())
            end = found.end()
        del self._heard[:end]
        del self._heard[:-LONGEST_LINE]  # a line may have begun
        return lines

    @property
    def mtu(self) -> int:
        return self.size

    @property
    def max_unencoded_size(self) -> int:
        return self.size


class Updater:
    """A board's update server; a context manager. Used by one thread.

    say: is told of trouble, for the log. Every method but `upload` waits at most `within_s`.
    Raises: LinkError (no answer), DeviceRefusal (an answer that refuses, with the board's words).
    """

    def __init__(self, port: str, baud: int, say: Callable[[str], None] = lambda _: None) -> None:
        self.port = port
        self._say = say
        self._wire = Wire(port, baud)
        self._client = SMPClient(self._wire, port, timeout_s=GIVE_UP_S)

    @property
    def retries(self) -> int:
        """Requests that were sent again."""
        return self._wire.retries

    def __enter__(self) -> Updater:
        self._wire.open()
        return self

    def __exit__(self, *_: object) -> None:
        self._wire.close()

    def states(self, within_s: float = GIVE_UP_S) -> dict[int, Any]:
        """The images by slot, as smpclient's ImageState."""
        answer = self._ask(ImageStatesRead, within_s)
        return {image.slot: image for image in answer.images}

    def information(self, within_s: float = GIVE_UP_S) -> str:
        """Hardware, marks, the counter's floor and the last update, in the board's words."""
        return str(self._ask(OSApplicationInfoRead, within_s).output)

    def try_next(self, digest: bytes, within_s: float = GIVE_UP_S) -> None:
        """Let the image in slot 1 run at the next reset. Only once the board has checked it.

        The board may have heard it although its answer was lost, and then says that it is busy.
        """
        try:
            self._ask(lambda: ImageStatesWrite(hash=digest), within_s)
        except DeviceRefusal:
            waiting = self.states(within_s).get(1)
            if waiting is None or not waiting.pending or waiting.hash != digest:
                raise

    def confirm(self, digest: bytes, within_s: float = GIVE_UP_S) -> None:
        """Keep the image that runs; it must be the one with `digest`."""
        self._ask(lambda: ImageStatesWrite(hash=digest, confirm=True), within_s)

    def reset(self) -> None:
        """Start the board anew. Its answer may get lost in that: it is not waited for long."""
        self._wire.again = False
        self._request(ResetWrite(), RESET_HEARD_S)
        self._wire.again = True

    def session(self, within_s: float = HELLO_WITHIN_S) -> Session:
        """HELLO on the same wire: who is there, and its telemetry.

        Raises: LinkError if the firmware does not answer; the bootloader alone does not.
        """
        session = Session(self._wire.open())
        session.hello(within_s)
        return session

    def upload(self, data: bytes, progress: Callable[[int], None]) -> list[int]:
        """Write `data` to slot 1; the offsets at which it had been interrupted and went on.

        progress: is told the offset that the board wants next. The board compares the SHA-256 of
        what its flash then holds.
        """
        reached, since, resumed = 0, time.monotonic(), list[int]()
        while True:
            before = reached
            reached, why = self._upload_on(data, reached, progress, resumed)
            if why == "":
                return resumed
            if reached > before:
                since = time.monotonic()
            if time.monotonic() - since > GIVE_UP_S:
                raise LinkError(
                    f"port {self.port}: the upload stands at {reached} of {len(data)} bytes "
                    f"for {GIVE_UP_S:g} s ({why}); check cable and power, then flash again: "
                    "it goes on there"
                )
            self._say(f"upload: {why} at {reached}, again")

    def _upload_on(
        self, data: bytes, reached: int, progress: Callable[[int], None], resumed: list[int]
    ) -> tuple[int, str]:
        """One go of smpclient's upload: the last offset, and what ended it ("": complete)."""
        last, heard_at, first = reached, time.monotonic(), True

        async def go() -> None:
            nonlocal last, heard_at, first
            upload = self._client.upload(
                data, first_timeout_s=GIVE_UP_S, subsequent_timeout_s=GIVE_UP_S
            )
            async for offset in upload:
                begun_again = first and (reached > 0 or offset > LARGEST)
                if begun_again or (last > 0 and time.monotonic() - heard_at > INTERRUPTED_S):
                    resumed.append(offset if begun_again else last)
                last, heard_at, first = offset, time.monotonic(), False
                progress(offset)

        try:
            asyncio.run(go())
        except TimeoutError:
            return last, "no answer"
        except SMPUploadError as refusal:
            if "no upload is under way" in str(refusal):  # it was reset meanwhile
                return last, "the board was reset"
            if "mismatched SHA256" in str(refusal):
                return 0, "the flash did not hold what was sent"
            raise refused(self.port, "the upload", str(refusal)) from None
        except SMPClientException as trouble:
            return last, str(trouble)
        except LinkError as trouble:
            self._let_go()
            return last, str(trouble)
        return last, ""

    def _let_go(self) -> None:
        """The port has gone: it is opened again when it is wanted next."""
        self._wire.close()
        time.sleep(REOPEN_S)

    def _ask(self, request: Callable[[], Any], within_s: float) -> Any:
        """Ask until an answer comes."""
        until = time.monotonic() + within_s
        while True:
            asked = request()
            answer = self._request(asked, max(until - time.monotonic(), AGAIN_S))
            if answer is not None and success(answer):
                return answer
            if answer is not None and error(answer):
                words = getattr(answer, "rsn", None) or str(answer)
                raise refused(self.port, type(asked).__name__, words)
            if time.monotonic() > until:
                raise LinkError(
                    f"port {self.port}: no answer from the update server within {within_s:g} s; "
                    "check power and cable, and that the board has edge-wm's bootloader"
                )

    def _request(self, asked: Any, wait_s: float) -> Any:
        """The answer; None for silence, nonsense, or a port that is gone."""
        try:
            return asyncio.run(self._client.request(asked, timeout_s=wait_s))
        except TimeoutError:
            return None
        except SMPClientException as trouble:
            self._say(str(trouble))
            return None
        except LinkError as trouble:
            self._say(str(trouble))
            self._let_go()
            return None


def refused(port: str, what: str, words: str) -> DeviceRefusal:
    """The board's own words in a sentence."""
    found = re.search(r"rsn='([^']*)'|rsn=\"([^\"]*)\"", words)
    said = next(filter(None, found.groups()), words) if found else words
    return DeviceRefusal(f"port {port}: the board refuses {what}: {said}")
