"""Int8 graphs for the general engines, by onnxruntime's own quantizer, kept in build/bench.

static   QDQ with activation scales from calibration: what onnxruntime and OpenVINO read
dynamic  activation scales per tensor at run time: onnxruntime only

Weights have a scale per output channel. Only products with constant weights are quantized, and
not the two-hot bins: attention scores and decoded rewards in int8 are faster and wrong.

u8 activations times s8 weights of 8 bits, which onnxruntime adds in saturating pairs where there is
no VNNI. Tried on TD-MPC2's rollout (Zen 3, 2026-11-25, ms and cost error over spread): this 54 and
0.13; weights of 7 bits, which its documentation advises, 53 and 0.25; u8 u8 71 and 0.08; s8 s8 151.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import onnx

from edge_wm.types import Array

KEPT = Path(__file__).resolve().parents[3] / "build" / "bench"
PRODUCTS = ["MatMul", "Gemm", "Conv"]


def static(blob: bytes, calibration: Callable[[], Sequence[Mapping[str, Array]]]) -> bytes:
    """calibration: gives inputs of the graph; asked only if the graph was not made before."""

    def write(source: Path, target: Path) -> None:
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
        from onnxruntime.quantization.calibrate import CalibrationDataReader

        class Reader(CalibrationDataReader):
            def __init__(self) -> None:
                self._rest = iter(calibration())

            def get_next(self) -> Mapping[str, Array] | None:
                return next(self._rest, None)

        quantize_static(
            source, target, Reader(), quant_format=QuantFormat.QDQ, op_types_to_quantize=PRODUCTS,
            per_channel=True, weight_type=QuantType.QInt8,
            activation_type=QuantType.QUInt8, nodes_to_exclude=_excluded(source),
            extra_options={
                "MatMulConstBOnly": True,
                "OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm"],
            },
        )  # fmt: skip

    return _kept(blob, "static", write)


def dynamic(blob: bytes) -> bytes:
    """The LSTM operator too; convolutions are left as they are (onnxruntime is slow at them)."""

    def write(source: Path, target: Path) -> None:
        from onnxruntime.quantization import QuantType, quantize_dynamic

        quantize_dynamic(
            source, target, op_types_to_quantize=["MatMul", "Gemm", "LSTM"], per_channel=True,
            weight_type=QuantType.QInt8, nodes_to_exclude=_excluded(source),
            extra_options={"MatMulConstBOnly": True},
        )  # fmt: skip

    return _kept(blob, "dynamic", write)


def _kept(blob: bytes, kind: str, write: Callable[[Path, Path], None]) -> bytes:
    """What `write` makes of the prepared graph, from disk where it was made before."""
    settings = kind.encode() + Path(__file__).read_bytes()
    digest = hashlib.sha256(blob + settings).hexdigest()[:24]
    target = KEPT / f"{digest}.onnx"
    if not target.exists():
        from onnxruntime.quantization.shape_inference import quant_pre_process

        KEPT.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=KEPT) as folder, _quiet():
            source, prepared, made = (Path(folder) / n for n in ("in.onnx", "pre.onnx", "out.onnx"))
            source.write_bytes(blob)
            quant_pre_process(source, prepared, skip_symbolic_shape=True)
            write(prepared, made)
            made.rename(target)
    return target.read_bytes()


def _excluded(source: Path) -> list[str]:
    """Products with one column: the two-hot bins."""
    graph = onnx.load(source).graph
    narrow = {t.name for t in graph.initializer if len(t.dims) == 2 and t.dims[1] == 1}
    return [n.name for n in graph.node if n.op_type == "MatMul" and n.input[1] in narrow]


@contextlib.contextmanager
def _quiet():
    """The quantizer talks at length."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
