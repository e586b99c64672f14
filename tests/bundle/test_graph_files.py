"""Damaged graph files: every cut and every flipped byte is read to an end, in bounds.

A mutation may still be a valid graph (another weight, another name); what must never happen is
anything but an answer or a ModelError.
"""

from __future__ import annotations

import random

import pytest

from bundle import tiny
from edge_wm.bundle.manifest import manifest_from
from edge_wm.bundle.structure import check_graph
from edge_wm.errors import ModelError

MANIFEST = manifest_from(tiny.document()[0], "tiny")


def refusal(kind: str, blob: bytes) -> str | None:
    """Why the blob cannot be the cost function's graph; None if it can."""
    try:
        check_graph(kind, blob, MANIFEST, "cost", "graph")
    except ModelError as error:
        return str(error)
    return None


GRAPHS = {"onnx": tiny.graphs()["cost"], "tflite": tiny.tflite_cost()}


@pytest.mark.parametrize("kind", GRAPHS)
def test_the_whole_file_passes(kind: str) -> None:
    assert refusal(kind, GRAPHS[kind]) is None


@pytest.mark.parametrize("kind", GRAPHS)
def test_cut_off_at_every_byte(kind: str) -> None:
    for length in range(len(GRAPHS[kind])):
        assert (refusal(kind, GRAPHS[kind][:length]) or "").startswith("graph: "), length


@pytest.mark.parametrize("kind", GRAPHS)
def test_every_byte_flipped(kind: str) -> None:
    rng = random.Random(3)
    for at in range(len(GRAPHS[kind])):
        changed = bytearray(GRAPHS[kind])
        changed[at] ^= 1 << rng.randrange(8)
        assert (refusal(kind, bytes(changed)) or "graph: ").startswith("graph: "), at


@pytest.mark.parametrize("kind", GRAPHS)
def test_noise(kind: str) -> None:
    rng = random.Random(7)
    head = b"" if kind == "onnx" else b"\x08\x00\x00\x00TFL3"
    for _ in range(200):
        assert refusal(kind, head + rng.randbytes(rng.randrange(200)))


def test_a_file_of_too_many_fields_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_wm.bundle.onnx_file.MAX_FIELDS", 1000)
    assert refusal("onnx", b"\x12\x00" * 1001) == (
        "graph: more than 1000 fields; a bundle's graph must be smaller"
    )
