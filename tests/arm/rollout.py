"""The shipped rover's belief and imagination, as hashes; run by the Pythons of two processors.

    python rollout.py BUNDLE        prints JSON

The world model's own door tries graphs in a child process, which an emulated Python cannot start:
so the functions are loaded one by one here.
"""

from __future__ import annotations

import hashlib
import json
import platform
import sys

import numpy as np

from edge_wm.backends import BACKENDS, load_graph, native_rollout
from edge_wm.backends.native import chosen_kernels, kernels
from edge_wm.bundle import load_trust, open_bundle
from edge_wm.types import Array

CANDIDATES = 128


def hashed(arrays: dict[str, Array]) -> str:
    """Of all bits of some arrays, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()[:16]


def main() -> None:
    bundle = open_bundle(sys.argv[1], load_trust())
    manifest = bundle.manifest
    random = np.random.Generator(np.random.Philox(7))

    def graph(name: str, backend: str):
        function = manifest.functions[name]
        return load_graph(
            bundle.blob(function.graphs[BACKENDS[backend]]), function, backend, name=name
        )

    encoder = manifest.functions["encoder"]
    observation = {
        spec.tensor: (
            random.integers(0, 256, (1, *spec.shape[1:]), dtype=np.uint8)
            if spec.dtype == "uint8"
            else random.standard_normal((1, *spec.shape[1:])).astype(spec.dtype)
        )
        for spec in encoder.inputs
    }
    encoded = {b: graph("encoder", b).run(observation) for b in ("onnxruntime", "native")}
    belief = {
        spec.target.removeprefix("belief."): encoded["native"][spec.tensor][0]
        for spec in encoder.outputs
    }

    graphs = {name: graph(name, "native") for name in manifest.functions if name != "encoder"}
    rollout = native_rollout(manifest, graphs)
    assert rollout is not None, "the rover's functions must all run natively"
    steps = 12
    actions = random.uniform(-1, 1, (CANDIDATES, steps, manifest.action_size)).astype(np.float32)
    goals = {name: random.standard_normal(4).astype(np.float32) for name in rollout.goals}
    weights = {name: term.weight for name, term in manifest.cost_terms.items()}
    cost, infeasible, terms, beliefs = rollout.run(
        belief, goals, actions, dt=0.15, weights=weights, keep_beliefs=True
    )
    assert beliefs is not None
    print(
        json.dumps(
            {
                "machine": platform.machine(),
                "available": kernels(),
                "kernels": chosen_kernels(),
                "encoder_onnxruntime": hashed(encoded["onnxruntime"]),
                "encoder_native": hashed(encoded["native"]),
                "cost": hashed({"cost": cost, "infeasible": infeasible}),
                "terms": hashed(terms),
                "beliefs": hashed(beliefs),
                "best_cost": float(cost.min()),
                "feasible": int((~infeasible).sum()),
            }
        )
    )


if __name__ == "__main__":
    main()
