"""Import a checkpoint through the command line, and open what came of it, for these tests."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from edge_wm.backends import BACKENDS, load_graph
from edge_wm.bundle import load_trust, open_bundle
from edge_wm.cli import app
from edge_wm.world_model import WorldModel


def imported(family: str, checkpoint: Path, out: Path, *options: str) -> Path:
    """The bundle that `edge-wm import` wrote. Raises what the command raised."""
    arguments = ["import", family, str(checkpoint), "--out", str(out), *options]
    done = CliRunner().invoke(app, arguments)
    if done.exception is not None:
        raise done.exception
    return out


def model_of(path: Path, backend: str = "native") -> WorldModel:
    """The bundle's model, every function on one backend."""
    bundle = open_bundle(path, load_trust())
    graphs = {
        name: load_graph(
            bundle.blob(function.graphs[BACKENDS[backend]]), function, backend, name=name
        )
        for name, function in bundle.manifest.functions.items()
    }
    return WorldModel.of_graphs(bundle.manifest, graphs, ())
