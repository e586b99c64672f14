"""Makes a bundle's models int8, measures what that costs, and writes it on a card.

    data.py      what is measured on: recordings of `edge-wm run`, an .npz, or reference inputs
    layers.py    step programs with any choice of layers in int8
    measure.py   float32 beside int8: beliefs by horizon step, returns, plans
    choice.py    which layers stay float32
    writing.py   the bundle: programs, reference cases of their own, the card

Weights become int8 with one scale for each output; activations are quantized row by row while
running (bundle/program.py has the arithmetic), so that nothing is calibrated and the data is for
measuring only. Static activation scales, and int8 graphs for onnxruntime and LiteRT, are not made.

Invariant: the same bundle, data and settings give the same manifest and blobs, on every machine
whose float32 agrees in the last bit; every number on the card was measured on the programs that
are in the bundle.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_wm import __version__
from edge_wm.bundle import Bundle
from edge_wm.errors import RefusedError, UsageError
from edge_wm.quantize.choice import Choice, choose_layers
from edge_wm.quantize.data import Data, npz_names, read_data
from edge_wm.quantize.layers import Layer, Programs
from edge_wm.quantize.measure import Measurement, Progress, sensitivities
from edge_wm.quantize.writing import Written, write_float32, write_quantized
from edge_wm.robot import Robot
from edge_wm.types import Float32
from edge_wm.world_model import WorldModel

__all__ = [
    "BOUND",
    "Layer",
    "Quantized",
    "Settings",
    "Written",
    "npz_names",
    "quantize",
    "write_float32",
    "write_quantized",
]

BOUND = 0.1  # of a tensor's spread
DIGITS = 4  # on the card


@dataclass(frozen=True)
class Settings:
    """What the user decides."""

    keep: tuple[str, ...] = ()  # layers that stay float32: "function:layer", or "layer" of any
    functions: tuple[str, ...] = ()  # that may become int8; none: all
    bound: float = BOUND


@dataclass(frozen=True)
class Quantized:
    """A choice of layers, and what it costs."""

    programs: Programs = field(repr=False)
    choice: Choice
    data: Data = field(repr=False)
    card: dict[str, Any]  # for the manifest's accuracy_card["int8"]
    returns: Float32 = field(repr=False)  # (2, candidates): float32 and int8, standardized


def quantize(
    bundle: Bundle,
    paths: Sequence[Path] = (),
    settings: Settings | None = None,
    *,
    bags_of: Robot | None = None,
    progress: Progress = lambda what, done, of: None,
) -> Quantized:
    """Choose the layers of a bundle that become int8, measured on the data in `paths`.

    bags_of: the robot that bags among them were recorded of.

    Raises: UsageError, MismatchError and RefusedError (the data, an unknown layer, a layer that is
    constant or saturated, a bound that cannot be met), ModelError, BackendError, FormatError.
    """
    settings = settings or Settings()
    manifest = bundle.manifest
    if "cost" not in manifest.functions:
        raise RefusedError(
            f"bundle {manifest.name}: has no cost to judge by, and int8 is measured by what it "
            "imagines and how it judges that; run it in float32"
        )
    programs = _programs(bundle, settings)
    kept = _kept(programs, settings)
    layers = [layer for layer in programs.layers if layer not in kept]
    if not layers:
        raise RefusedError(
            f"bundle {manifest.name}: has no layer of 1024 weights or more that may become int8"
            f"{_why_not(programs)}"
        )
    progress("reading data", 0, 1)
    any_frame = WorldModel.of_graphs(manifest, programs.graphs(()), ())
    data = read_data(bundle, paths, any_frame.mean_action, bags_of)
    progress("imagining in float32", 0, 1)
    measurement = Measurement(programs, data)
    _require_alive(measurement, layers)
    sensitivity = dict(sensitivities(measurement, layers, progress))
    choice = choose_layers(measurement, layers, sensitivity, settings.bound, progress)
    agreement, returns = measurement.agreement(choice.int8, progress)
    card = _card(measurement, settings, kept, sensitivity, choice) | agreement
    return Quantized(programs, choice, data, _rounded(card), returns)


def _programs(bundle: Bundle, settings: Settings) -> Programs:
    functions = [str(name) for name in bundle.manifest.functions]
    for name in settings.functions:
        if name not in functions:
            raise UsageError(
                f"--functions: bundle {bundle.manifest.name} has no function {name!r}; "
                f"choose of {', '.join(functions)}"
            )
    return Programs(bundle, settings.functions or functions)


def _kept(programs: Programs, settings: Settings) -> list[Layer]:
    """The layers that the user keeps. Raises: UsageError, where there is no such layer."""
    kept = []
    for name in settings.keep:
        found = [layer for layer in programs.layers if name in (str(layer), layer.name)]
        if not found:
            raise UsageError(
                f"--keep: bundle {programs.bundle.manifest.name} has no layer {name!r} that may "
                f"become int8; it has {', '.join(map(str, programs.layers)) or 'none'}"
            )
        kept += found
    return kept


def _why_not(programs: Programs) -> str:
    reasons = [f"{name}: {why}" for name, why in programs.not_native.items()]
    return f" ({'; '.join(reasons)})" if reasons else ""


def _require_alive(measurement: Measurement, layers: Collection[Layer]) -> None:
    """Raises: RefusedError, if a layer says nothing on this data."""
    for layer in layers:
        feeds = measurement.feeds[layer.function]
        trouble = measurement.programs.trouble(layer, feeds) if feeds else None
        if trouble:
            raise RefusedError(
                f"layer {layer}: {trouble} on {', '.join(s.name for s in measurement.data.sources)}"
                f", so that int8 cannot be measured; give data of the kind that the model was "
                f"trained on, or keep it with --keep {layer}"
            )


def _card(
    measurement: Measurement,
    settings: Settings,
    kept: Collection[Layer],
    sensitivity: Mapping[Layer, Mapping[str, float]],
    choice: Choice,
) -> dict[str, Any]:
    """What the bundle says of itself; every error is a share of a tensor's spread."""
    manifest, data = measurement.manifest, measurement.data
    return {
        "edge_wm": __version__,
        "bound": settings.bound,
        "weak": data.weak,
        "data": [
            {"name": s.name, "kind": s.kind, "sha256": s.sha256, "moments": s.moments}
            for s in data.sources
        ],
        "moments": len(measurement.moments),
        "step_s": manifest.step_ns * 1e-9,
        "int8": [str(layer) for layer in choice.int8],
        "kept": [str(layer) for layer in choice.kept],
        "kept_by_hand": [str(layer) for layer in kept],
        "open_loop": measurement.by_step(choice.int8),
        "errors": dict(choice.errors),
        "errors_all_int8": dict(choice.errors_all_int8),
        "spread": measurement.spread,
        "sensitivity": {
            str(layer): max(errors.values(), default=0.0) for layer, errors in sensitivity.items()
        },
        "sensitive": {
            str(layer): max(errors, key=lambda name: errors[name]) if errors else ""
            for layer, errors in sensitivity.items()
        },
    }


def _rounded(value: Any) -> Any:
    """A card in four digits, and none that is not finite."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if abs(value) < 1e30 else None
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    return [_rounded(inner) for inner in value] if isinstance(value, list) else value
