"""edge_wm.importers.reading: foreign files as data, in a child that is bounded."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from importlib.util import find_spec

import numpy as np
import pytest

from edge_wm.errors import CheckpointError, SystemTroubleError
from edge_wm.importers.reading import Limits, read_checkpoint


def safetensors(tensors: dict[str, np.ndarray]) -> bytes:
    """The format written down byte by byte: length, JSON header, numbers."""
    header, body = {}, b""
    for name, array in tensors.items():
        start = len(body)
        body += array.astype("<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": array.shape, "data_offsets": [start, len(body)]}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


@pytest.mark.skipif(find_spec("safetensors") is None, reason="safetensors is not installed")
def test_safetensors_are_read_and_cut_ones_refused(tmp_path):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    whole = safetensors({"layer.weight": array})
    path = tmp_path / "x.safetensors"
    path.write_bytes(whole)
    read = read_checkpoint(path, "safetensors")
    np.testing.assert_array_equal(read.take("layer.weight", 2, 3), array)
    read.require_all_taken()
    for end in (0, 7, 20, len(whole) - 1):
        path.write_bytes(whole[:end])
        with pytest.raises(CheckpointError, match="must be a safetensors file"):
            read_checkpoint(path, "safetensors")


def test_json_of_anything_else_is_refused(tmp_path):
    path = tmp_path / "x.json"
    for text, message in (
        ("3", "must be a list or a mapping of arrays"),
        ('{"a": ["x"]}', "tensor 'a' must be a rectangular array of numbers"),
        ("[" * 100_000, "must be JSON"),
        ("[1e400]", "must be JSON|finite"),
    ):
        path.write_text(text)
        with pytest.raises(CheckpointError, match=message):
            read_checkpoint(path, "json").take("0")


@pytest.mark.parametrize(
    "limits", [Limits(cpu_s=1), Limits(memory_bytes=300 << 20)], ids=["time", "memory"]
)
def test_a_file_that_asks_for_too_much_ends_its_reader_only(tmp_path, limits):
    """Ten million small arrays need gigabytes and seconds as Python's objects."""
    path = tmp_path / "x.json"
    path.write_bytes(b"[[" + b"[1]," * 10_000_000 + b"[1]]]")
    with pytest.raises(CheckpointError, match=r"ended its reader .*do not use it"):
        read_checkpoint(path, "json", limits)


def test_a_missing_file_is_the_machines_trouble(tmp_path):
    with pytest.raises(SystemTroubleError, match="No such file or directory; name another"):
        read_checkpoint(tmp_path / "none.json", "json")


@pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed")
def test_torch_files_are_tensors_only(tmp_path):
    import torch

    path = tmp_path / "x.pt"
    torch.save({"model": {"w": torch.arange(4.0)}}, path)
    np.testing.assert_array_equal(read_checkpoint(path, "torch").take("model.w", 4), range(4))


@pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed")
def test_a_torch_file_with_code_in_it_runs_nothing(tmp_path):
    mark = tmp_path / "ran"
    code = f"cos\nsystem\n(S'touch {mark}'\ntR.".encode()  # a pickle that calls os.system
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("x/data.pkl", code)
        archive.writestr("x/version", "3\n")
    path = tmp_path / "x.pt"
    path.write_bytes(packed.getvalue())
    with pytest.raises(CheckpointError, match="must be a PyTorch file of tensors only"):
        read_checkpoint(path, "torch")
    assert not mark.exists()
