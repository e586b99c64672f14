"""Two encoders, one image each: ViT-tiny and the convolutional VAE's.

ViT-tiny: DeiT-Ti (Touvron et al. 2021) at its usual 224 × 224 with patches of 16: 197 tokens of
192, 12 blocks, 3 heads, MLP 768; read at the class token. Conv-VAE: Ha and Schmidhuber 2018, 64 ×
64: four convolutions 4 × 4 of stride 2 to 32, 64, 128, 256 channels, then the 32 means.
"""

from __future__ import annotations

import math

import numpy as np

from engine_bench.case import Case, StepFunction
from engine_bench.graph_writer import GraphWriter, Value


def vit_tiny() -> Case:
    return _case("vit-tiny", "ViT-tiny encoder, 224 × 224, patch 16", _vit(), 224)


def conv_vae() -> Case:
    return _case("conv-vae", "conv-VAE encoder, 64 × 64", _conv(), 64)


def _case(name: str, title: str, encoder: StepFunction, size: int) -> Case:
    image = np.random.default_rng(7).integers(0, 256, (1, size, size, 3)).astype(np.uint8)
    functions = {"encoder": encoder}
    return Case(
        name=name,
        title=title,
        work="encode",
        functions=functions,
        rewritten=functions,
        macs=encoder.macs,
        observation={"camera": image},
    )


def _pixels(w: GraphWriter, size: int) -> str:
    """The image (1, size, size, 3) of bytes as (1, 3, size, size) from 0 to 1."""
    camera = w.input("camera", (1, size, size, 3), "uint8")
    share = w.node("Mul", w.node("Cast", camera, to=1), w.constant(1 / 255))
    return w.node("Transpose", share, perm=[0, 3, 1, 2])


def _convolution(
    w: GraphWriter, x: str, size: int, channels: tuple[int, int], kernel: int, stride: int
) -> tuple[str, int]:
    """Without padding; gives the tensor and its height."""
    into, out = channels
    after = (size - kernel) // stride + 1
    w.macs += after * after * out * into * kernel * kernel
    weight = w.weights(out, into, kernel, kernel, std=math.sqrt(2 / (into * kernel * kernel)))
    made = w.node(
        "Conv", x, weight, w.weights(out, std=0.1), kernel_shape=[kernel] * 2, strides=[stride] * 2
    )
    return made, after


def _conv() -> StepFunction:
    w, size, into = GraphWriter(41), 64, 3
    x = _pixels(w, size)
    for out in (32, 64, 128, 256):
        x, size = _convolution(w, x, size, (into, out), 4, 2)
        x, into = w.node("Relu", x), out
    last = w.node("Transpose", x, perm=[0, 2, 3, 1])
    flat = w.reshape(Value(last, into), size * size * into)
    w.output("mean", w.dense(flat, 32))
    return w.function("camera=observation.camera:1,64,64,3:uint8", "mean=belief.z:1,32")


def _vit(width: int = 192, heads: int = 3, blocks: int = 12, patch: int = 16) -> StepFunction:
    w = GraphWriter(42)
    patches, side = _convolution(w, _pixels(w, 224), 224, (3, width), patch, patch)
    rows = w.node("Transpose", w.node("Reshape", patches, w.constant([1, width, side * side])),
                  perm=[0, 2, 1])  # fmt: skip
    tokens = side * side + 1
    joined = w.node("Concat", w.weights(1, 1, width, std=0.5), rows, axis=1)
    x = Value(w.node("Add", joined, w.weights(1, tokens, width, std=0.2)), width, tokens, False)
    for _ in range(blocks):
        seen = w.layer_norm(x)
        every = w.dense(seen, 3 * width)
        q, k, v = (w.columns(every, i * width, (i + 1) * width) for i in range(3))
        x = w.each("Add", x, w.dense(w.attention(q, k, v, heads), width))
        x = w.each("Add", x, w.dense(w.gelu(w.dense(w.layer_norm(x), 4 * width)), width))
    first = w.node("Gather", w.layer_norm(x), w.constant_of(np.int64(0)), axis=1)
    w.output("class", Value(first, width))
    return w.function("camera=observation.camera:1,224,224,3:uint8", f"class=belief.z:1,{width}")
