"""zoo/rover/graphs.py: a network written down once gives the same numbers as ONNX and as TFLite."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnxruntime = pytest.importorskip("onnxruntime")
litert = pytest.importorskip("ai_edge_litert.interpreter")
pytest.importorskip("onnx")
pytest.importorskip("flatbuffers")

ROVER = Path(__file__).resolve().parents[2] / "zoo" / "rover"


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROVER))
    from graphs import Network

    yield Network()
    sys.modules.pop("graphs")


def both(network: Any, batch: int, **inputs: np.ndarray) -> list[dict[str, np.ndarray]]:
    session = onnxruntime.InferenceSession(network.onnx(), providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    by_onnx = dict(zip(names, session.run(names, inputs), strict=True))
    interpreter = litert.Interpreter(model_content=network.tflite(batch), num_threads=1)
    interpreter.allocate_tensors()
    for details in interpreter.get_input_details():
        interpreter.set_tensor(details["index"], inputs[details["name"]])
    interpreter.invoke()
    outputs = interpreter.get_output_details()
    return [by_onnx, {d["name"]: interpreter.get_tensor(d["index"]) for d in outputs}]


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape) + sum(shape)).normal(size=shape).astype(np.float32)


def test_dense_norm_columns_and_concat(network: Any) -> None:
    weight, bias, gain, shift = normal(4, 6), normal(4), normal(4), normal(4)
    x, y = normal(3, 5), normal(3, 2)
    a, b = network.input("x", (-1, 5)), network.input("y", (-1, 2))
    hidden = network.dense(network.concat([network.columns(a, 1, 5), b]), weight, bias, relu=True)
    network.output("out", network.norm(hidden, gain, shift))
    hidden_np = np.maximum(np.concatenate([x[:, 1:], y], axis=1) @ weight.T + bias, 0.0)
    away = hidden_np - hidden_np.mean(axis=1, keepdims=True)
    expected = away / np.sqrt((away**2).mean(axis=1, keepdims=True) + 1e-5) * gain + shift
    for found in both(network, 3, x=x, y=y):
        np.testing.assert_allclose(found["out"], expected, atol=1e-5)


@pytest.mark.parametrize(("size", "stride", "side"), [(3, 1, 6), (3, 2, 6), (5, 2, 8)])
def test_convolution_against_plain_loops(network: Any, size: int, stride: int, side: int) -> None:
    weight, bias, x = normal(4, 3, size, size), normal(4), normal(2, side, side, 3)
    network.output(
        "out", network.conv(network.input("x", (-1, side, side, 3)), weight, bias, stride)
    )
    padded = np.pad(x, ((0, 0), (size // 2,) * 2, (size // 2,) * 2, (0, 0)))
    expected = np.empty((2, side // stride, side // stride, 4), np.float32)
    for i in range(side // stride):
        for j in range(side // stride):
            patch = padded[:, i * stride :, j * stride :][:, :size, :size]
            expected[:, i, j] = np.einsum("bhwc,ochw->bo", patch, weight) + bias
    for found in both(network, 2, x=x):
        np.testing.assert_allclose(found["out"], expected, atol=1e-4)


def test_spread_puts_four_channels_on_four_pixels(network: Any) -> None:
    x = np.arange(2 * 2 * 2 * 8, dtype=np.float32).reshape(2, 2, 2, 8)
    network.output("out", network.spread(network.input("x", (-1, 2, 2, 8))))
    expected = np.empty((2, 4, 4, 2), np.float32)
    for i in range(4):
        for j in range(4):
            first = 2 * (2 * (i % 2) + j % 2)
            expected[:, i, j] = x[:, i // 2, j // 2, first : first + 2]
    for found in both(network, 2, x=x):
        np.testing.assert_array_equal(found["out"], expected)


def test_bytes_means_and_elementwise_operations(network: Any) -> None:
    image = np.arange(48, dtype=np.uint8).reshape(1, 4, 4, 3)
    x = network.to_float(network.input("image", (1, 4, 4, 3), "uint8"))
    away = network.pair("sub", x, network.mean(x))
    flat = network.reshape(network.pair("div", away, 7.0), (48,))
    network.output("sine", network.each("sin", flat))
    network.output("square", network.pair("mul", flat, flat))
    network.output("chance", network.each("sigmoid", network.pair("add", flat, 0.5)))
    network.output("root", network.each("sqrt", network.each("relu", flat)))
    network.output("cosine", network.each("cos", flat))
    v = ((image - 23.5) / 7.0).reshape(1, 48)
    expected = {
        "sine": np.sin(v),
        "square": v * v,
        "chance": 1 / (1 + np.exp(-v - 0.5)),
        "root": np.sqrt(np.maximum(v, 0.0)),
        "cosine": np.cos(v),
    }
    for found in both(network, 1, image=image):
        assert set(found) == set(expected)
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, atol=1e-5)
