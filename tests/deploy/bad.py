"""Bad bundles by name: how each is made, what befalls it, and what the reason must say.

The suite activates each once; the proof does it many times, with a seed that varies what can be.

The graphs that are known to crash or hang a library are refused before a library sees them
(tests/backends/test_probe.py has them), so a crash is made by a real signal to the real process.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner

from deploy import bundles
from edge_wm import deploy
from edge_wm.bundle import SigningKey, load_trust
from edge_wm.deploy.starting import opened_store, start
from edge_wm.deploy.store import bundle_path
from edge_wm.deploy.trial import Health
from edge_wm.errors import EdgeWmError
from edge_wm.robot import find_robot, load_robot

ROVER = find_robot("rover")
STRANGER = SigningKey("stranger", CryptoSigner(Ed25519PrivateKey.from_private_bytes(bytes(32))))

Change = Callable[[bytes, int], bytes]


@dataclass(frozen=True)
class Bad:
    """One way to be bad. `write` gets a path and a seed; `damage` changes the stored bytes."""

    write: Callable[[Path, int], object]
    says: str  # a regular expression
    damage: Change | None = None
    fault: str | None = None  # module, seconds and signal: what befalls that process


def _good(path: Path, seed: int) -> None:
    bundles.write(path, description=f"Number {seed}.", counter=9)


def _graph(function: str, make: Callable[[int], bytes], kind: str = "onnx") -> Callable[..., None]:
    def write(path: Path, seed: int) -> None:
        functions = bundles.with_graph(function, make(seed), kind)
        bundles.write(path, functions, description=f"Number {seed}.", counter=9)

    return write


def _changed(**changes: object) -> Callable[..., None]:
    def write(path: Path, seed: int) -> None:
        bundles.write(path, **{"description": f"Number {seed}.", "counter": 9, **changes})

    return write


def _wrong(scale: float) -> Callable[..., None]:
    def write(path: Path, seed: int) -> None:
        reference = bundles.wrong_reference(scale + 1e-3 * (seed % 7))
        bundles.write(path, reference=reference, description=f"Number {seed}.", counter=9)

    return write


def _flipped(data: bytes, seed: int) -> bytes:
    at = (len(data) - 1 - 37 * seed) % len(data)
    return data[:at] + bytes([data[at] ^ 1 << seed % 8]) + data[at + 1 :]


def _odometry(**changes: object) -> dict[str, object]:
    stream = {"type": "odometry", "shape": [6], "dtype": "float64", "unit": "SI", **changes}
    axes = [
        {"name": "base.vx", "kind": "twist", "unit": "m/s", "scale": 0.5, "offset": 0.1},
        {"name": "base.wz", "kind": "twist", "unit": "rad/s", "scale": 2.0},
    ]
    return {"streams": {"odometry": stream}, "axes": axes}


def _axes(*names: str) -> dict[str, object]:
    needs = _odometry()
    axes = [{"name": n, "kind": "twist", "unit": "m/s", "scale": 1.0} for n in names]
    return {**needs, "axes": axes}


# What needs the whole trial to be found may, on a machine that others use too, run out of time.
BUSY = "|not ready after 9 s"
DAMAGED = r"missing or damaged on this disk"
BAD: Mapping[str, Bad] = {
    "crashes its library while it is loaded": Bad(
        _good, r"crashed by SIGSEGV", fault="edge_wm.backends.probe 0.1 SIGSEGV"
    ),
    "crashes while it runs": Bad(
        _good, r"crashed by SIGABRT", fault="edge_wm.deploy.trial 2.5 SIGABRT"
    ),
    "stands still while it runs": Bad(
        _good, rf"it hung{BUSY}", fault="edge_wm.deploy.trial 2.5 SIGSTOP"
    ),
    "hangs": Bad(_graph("encoder", lambda _: bundles.heavy_encoder(5000, 7)), r"hung|not ready"),
    "plans slowly": Bad(
        _graph("encoder", lambda seed: bundles.heavy_encoder(1500 + seed % 7, 1)),
        rf"running: a plan took .* the robot has 40 ms for one{BUSY}",
    ),
    "plans much too slowly": Bad(
        _graph("encoder", lambda seed: bundles.heavy_encoder(2200 + seed % 7, 2)),
        rf"running: a plan took .* the robot has 40 ms for one{BUSY}",
    ),
    "wants more memory than there is": Bad(
        _graph("encoder", lambda seed: bundles.hungry_encoder(10**9 + seed)), r"ran out of"
    ),
    "wants a little more memory than allowed": Bad(
        _graph("encoder", lambda seed: bundles.hungry_encoder(6 * 10**8 + seed)), r"ran out of"
    ),
    "dynamics give NaN": Bad(
        _graph("dynamics", lambda _: bundles.poisoned("Log")), "beliefs are not finite"
    ),
    "dynamics give the root of a negative number": Bad(
        _graph("dynamics", lambda _: bundles.poisoned("Sqrt")), "beliefs are not finite"
    ),
    "dynamics give infinity": Bad(
        _graph("dynamics", lambda _: bundles.poisoned("Reciprocal")), "beliefs are not finite"
    ),
    "costs are NaN": Bad(
        _graph("cost", lambda _: bundles.poisoned_cost()), f"cost term 'goal' is not finite{BUSY}"
    ),
    "encoder gives NaN": Bad(
        _graph("encoder", lambda _: bundles.poisoned_encoder()), "beliefs are not finite"
    ),
    "outputs are a little off": Bad(_wrong(1.01), "reference case 0, output 'next'"),
    "outputs are another model's": Bad(_wrong(-1.0), "reference case 0, output 'next'"),
    "needs a stream of another shape": Bad(
        _changed(needs=_odometry(unit="mm")), "needs stream 'odometry' with unit"
    ),
    "commands another robot's axes": Bad(
        _changed(needs=_axes("shoulder", "elbow")), "commands the axes shoulder, elbow"
    ),
    "was tampered with": Bad(_good, DAMAGED, _flipped),
    "was cut short": Bad(_good, DAMAGED, lambda data, seed: data[: len(data) // (2 + seed % 3)]),
    "is empty": Bad(_good, DAMAGED, lambda *_: b""),
    "is older than the floor": Bad(
        _changed(counter=2), "has counter 2, and this robot accepts 3 or more"
    ),
    "is signed by a stranger": Bad(
        lambda path, seed: bundles.write(path, key=STRANGER, description=f"Number {seed}."),
        "signed by the unknown key",
    ),
}
assert len(BAD) >= 20

# Python runs this at the start of every process that finds it on its path.
FAULTY = """
import os, signal, sys, threading
module, seconds, name = os.environ["EDGE_WM_FAULT"].split()
if module in sys.orig_argv:
    strike = lambda: os.kill(os.getpid(), signal.Signals[name])
    threading.Timer(float(seconds), strike).start()
"""


@contextmanager
def befallen(fault: str | None, folder: Path) -> Iterator[None]:
    """Let `fault` befall the processes that are started meanwhile."""
    if fault is None:
        yield
        return
    (folder / "sitecustomize.py").write_text(FAULTY)
    os.environ |= {"EDGE_WM_FAULT": fault, "PYTHONPATH": str(folder)}
    try:
        yield
    finally:
        del os.environ["EDGE_WM_FAULT"], os.environ["PYTHONPATH"]


def prepare(folder: Path) -> Path:
    """A store in which counter 3 is the floor and the bundle with counter 5 is active."""
    key = bundles.trust_key(folder)
    for version, counter in (("1.0.0", 3), ("2.0.0", 5)):
        file = bundles.write(folder / "good.wmb", version=version, counter=counter)
        digest = deploy.install(folder / "store", file, [key]).sha256
        health = Health(trial_s=30.0, window_s=0.5)  # a busy machine is not a bad bundle
        deploy.activate(folder / "store", digest, ROVER, [key], health=health)
    return folder / "store"


def rolled_back(store: Path, bad: Bad, seed: int, folder: Path) -> tuple[str, float]:
    """Activate a bad bundle: the reason, and the seconds it took. What was active stays so."""
    file = folder / "bad.wmb"
    bad.write(file, seed)
    kept = opened_store(store)
    before = kept.chain()
    digest = kept.put(file.read_bytes())  # also what `install` would refuse
    if bad.damage is not None:
        stored = store / bundle_path(digest)
        stored.write_bytes(bad.damage(stored.read_bytes(), seed))
    reason = "it was activated"
    began = time.monotonic()
    with befallen(bad.fault, folder):
        try:
            deploy.activate(store, digest, ROVER, [])
        except EdgeWmError as error:
            reason = str(error)
    seconds = time.monotonic() - began
    started = start(store, load_robot(ROVER), load_trust(), lambda bundle: bundle.sha256)
    assert kept.chain() == before
    assert started.generation == before[0]
    return reason, seconds
