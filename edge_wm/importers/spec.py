"""What an importer makes of a checkpoint: the folder that `edge-wm bundle build` takes.

Each function comes with its graph and, where the importer knows the network as plain arithmetic,
with a reference case computed from the checkpoint's own tensors in float64, by numpy. The build
then holds graph and step program against numbers that neither of them made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from edge_wm.bundle.manifest import FORMAT
from edge_wm.types import Array

TOLERANCE = 1e-4  # of reference outputs: float32 against float64


@dataclass(frozen=True)
class Port:
    """One tensor of a graph: its name, what it is fed from or stands for, and its shape."""

    tensor: str
    word: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class ImportedFunction:
    """One function of a world model, as a graph."""

    onnx: bytes
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    # Inputs and outputs of a reference case; none: the graph's own outputs become it.
    case_inputs: Mapping[str, Array] = field(default_factory=dict)
    case_outputs: Mapping[str, Array] = field(default_factory=dict)


def write_spec(
    folder: Path,
    manifest: Mapping[str, Any],
    functions: Mapping[str, ImportedFunction],
    model_card: str,
) -> None:
    """Write graphs, reference cases, model card and manifest into `folder`, which exists.

    manifest: its fields but for `format`, `functions`, `reference` and `model_card`.
    """
    entries: dict[str, Any] = {}
    cases: list[dict[str, Any]] = []
    for name, function in functions.items():
        (folder / f"{name}.onnx").write_bytes(function.onnx)
        entries[name] = {
            "graphs": {"onnx": f"{name}.onnx"},
            "inputs": [_entry(port, "source") for port in function.inputs],
            "outputs": [_entry(port, "target") for port in function.outputs],
        }
        if function.case_outputs:
            both = (function.case_inputs, function.case_outputs)
            files = [{t: f"{name}.{i}.npy" for i, t in enumerate(part, n)} for n, part in
                     zip((0, len(both[0])), both, strict=True)]  # fmt: skip
            for part, named in zip(both, files, strict=True):
                for tensor, file in named.items():
                    np.save(folder / file, np.asarray(part[tensor], np.float32))
            cases.append(
                {"function": name, "inputs": files[0], "outputs": files[1], "tolerance": TOLERANCE}
            )
    (folder / "MODEL_CARD.md").write_text(model_card, encoding="utf-8")
    document = {"format": FORMAT} | dict(manifest) | {"functions": entries, "reference": cases}
    document["model_card"] = "MODEL_CARD.md"
    text = yaml.safe_dump(document, sort_keys=False, width=100, allow_unicode=True)
    (folder / "manifest.yaml").write_text(text, encoding="utf-8")


def _entry(port: Port, role: str) -> dict[str, Any]:
    return {"tensor": port.tensor, role: port.word, "shape": list(port.shape)}
