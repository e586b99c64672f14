"""From other people's checkpoints to bundles: `edge-wm import FAMILY CHECKPOINT --out X.wmb`.

    checkpoint ──reading──► tensors by name ──family──► a spec folder ──authoring──► X.wmb
             (child process)           (strict names and shapes)     (parity, step programs)

A family is one file: its docstring is its layout, tensor by tensor, its one public function writes
the spec. What comes out is a bundle like any other; nothing in the runtime knows a family.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edge_wm.errors import BackendError, UsageError

# family -> (what CHECKPOINT is, the option that it takes or none)
FAMILIES: Mapping[str, tuple[str, str | None]] = {
    "ha-carracing": ("the folder with rnn.json and the controller's JSON", "temperature"),
    "policy-onnx": ("an ONNX file of a feed-forward policy", "layout"),
    "foundation-policy": ("foundation_policy/blob/checkpoint.h5", None),
}
TEMPERATURE = 1.0


def import_checkpoint(family: str, checkpoint: Path, folder: Path, **options: Any) -> None:
    """Write the spec of the model in `checkpoint` into `folder`, for `authoring.build_bundle`.

    options: what the family takes (`FAMILIES`); None stands for "not given".

    Raises: UsageError: no such family, or an option that it does not take. CheckpointError: the
    file is damaged or of another architecture. BackendError: a library is missing.
    """
    if family not in FAMILIES:
        raise UsageError(f"FAMILY must be one of {', '.join(FAMILIES)}, got {family!r}")
    takes = FAMILIES[family][1]
    for name, value in options.items():
        if value is not None and name != takes:
            raise UsageError(
                f"--{name} is not an option of family {family}, which takes "
                f"{f'--{takes}' if takes else 'none'}; leave it out"
            )
    try:
        write = _writer(family)
    except ImportError as error:
        raise BackendError(
            f'importing needs {error.name}, which is not installed; run: pip install "edge-wm'
            '[import]"'
        ) from None
    if takes == "temperature":
        given = options.get(takes)
        write(checkpoint, folder, TEMPERATURE if given is None else given)
    elif takes is not None:
        write(checkpoint, folder, options.get(takes))
    else:
        write(checkpoint, folder)


def _writer(family: str) -> Callable[..., None]:
    """The family's function; its module brings onnx, so it is imported when it is asked for."""
    if family == "ha-carracing":
        from edge_wm.importers.ha_carracing import import_ha_carracing

        return import_ha_carracing
    if family == "policy-onnx":
        from edge_wm.importers.policy_onnx import import_policy_onnx

        return import_policy_onnx
    from edge_wm.importers.foundation_policy import import_foundation_policy

    return import_foundation_policy
