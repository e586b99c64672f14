"""Which layers stay float32: measured one at a time, then kept greedily until the bound holds.

    all int8 ─► errors ─► within the bound? ─► done
                  ▲            │ no: of the layers that the worst error comes from,
                  └────────────┘ keep the one that makes most of it alone

Invariant: what `choose_layers` returns is within the bound, measured with exactly these layers.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from edge_wm.errors import RefusedError
from edge_wm.quantize.layers import Layer
from edge_wm.quantize.measure import Measurement, Progress

MOST_KEPT = 0.5  # of the weights: with more in float32 it is hardly an int8 model


@dataclass(frozen=True)
class Choice:
    """The layers in int8, and how it came to them."""

    int8: tuple[Layer, ...]
    kept: tuple[Layer, ...]  # by measurement, in this order; not those that the user kept
    errors: Mapping[str, float]  # the worst up to the horizon, with `int8`
    errors_all_int8: Mapping[str, float]  # before anything was kept by measurement


def choose_layers(
    measurement: Measurement,
    layers: Collection[Layer],
    sensitivity: Mapping[Layer, Mapping[str, float]],
    bound: float,
    progress: Progress,
) -> Choice:
    """Int8 for all `layers` but those that make most of an error above `bound`.

    Raises: RefusedError, if more than `MOST_KEPT` of the weights would have to stay float32.
    """
    int8, kept = list(layers), list[Layer]()
    total = sum(layer.numbers for layer in layers)
    first = errors = measurement.errors(int8)
    while errors and max(errors.values()) > bound:
        progress("keeping layers in float32", len(kept), len(layers))
        worst = max(errors, key=lambda name: errors[name])
        layer = max(int8, key=lambda layer: sensitivity[layer].get(worst, 0.0))
        kept.append(layer)
        int8.remove(layer)
        share = sum(layer.numbers for layer in kept) / total
        if share > MOST_KEPT:
            _refuse(measurement, worst, errors[worst], bound, kept, share, sensitivity)
        errors = measurement.errors(int8)
    # An early choice may be needless after later ones: what makes the bundle smallest goes first.
    for layer in sorted(kept, key=lambda layer: -layer.numbers) if len(kept) > 1 else ():
        progress("giving layers back to int8", 0, len(kept))
        with_it = [other for other in layers if other in (*int8, layer)]
        tried = measurement.errors(with_it)
        if max(tried.values()) <= bound:
            int8, errors = with_it, tried
            kept.remove(layer)
    return Choice(tuple(int8), tuple(kept), errors, first)


def _refuse(
    measurement: Measurement,
    worst: str,
    error: float,
    bound: float,
    kept: list[Layer],
    share: float,
    sensitivity: Mapping[Layer, Mapping[str, float]],
) -> None:
    manifest = measurement.manifest
    most = ", ".join(f"{layer} ({sensitivity[layer].get(worst, 0.0):.2g} alone)" for layer in kept)
    at = f" up to {manifest.horizon} steps ahead" if worst.startswith("belief.") else ""
    before = f"{len(kept) - 1} layers" if len(kept) != 2 else "1 layer"
    raise RefusedError(
        f"bundle {manifest.name} {manifest.version}: the error of {worst}{at} must be within "
        f"{bound:g} of its spread, got {error:.2g} with {before} kept in float32; one more would "
        f"be {share:.0%} of the weights, above {MOST_KEPT:.0%}; it comes from {most}; allow more "
        f"with --bound {_above(error):g}, or keep these layers with --keep"
    )


def _above(error: float) -> float:
    """A bound that would do, in two digits."""
    return float(f"{error * 1.1:.2g}")
