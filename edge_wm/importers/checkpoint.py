"""A checkpoint's tensors, taken one by one by their own names, with the shapes they must have.

An importer knows its layout by heart and asks for exactly that. What it does not find, what has
another shape, what is not finite, and what nobody asked for is refused by name: a network of
another size, a file that was cut off, or another framework's habit shows here and nowhere later.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edge_wm.errors import CheckpointError
from edge_wm.types import Array


class Checkpoint:
    """What a file held: tensors by name, and the words (attributes) beside them."""

    def __init__(
        self, path: Path, tensors: Mapping[str, Array], words: Mapping[str, str] | None = None
    ) -> None:
        self.path = path
        self.words = words or {}
        self._tensors = tensors
        self._taken: set[str] = set()

    @property
    def names(self) -> list[str]:
        return sorted(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape that a tensor has, for sizes that the layout leaves open.

        Raises: CheckpointError, if there is none.
        """
        if name not in self._tensors:
            raise CheckpointError(
                f"checkpoint {self.path.name}: must hold tensor {name!r}, got "
                f"{_few(self.names)}; give the file that this family's trainer writes"
            )
        return self._tensors[name].shape

    def take(self, name: str, *shape: int) -> Array:
        """The tensor `name`, in its own dtype.

        Raises: CheckpointError: it is not there, has another shape, or is not finite.
        """
        found = self.shape(name)
        if found != shape:
            raise CheckpointError(
                f"checkpoint {self.path.name}: tensor {name!r} must be {list(shape)}, got "
                f"{list(found)}; give a checkpoint of that size, docs/importing.md lists them"
            )
        tensor = self._tensors[name]
        if not np.isfinite(tensor).all():
            raise CheckpointError(
                f"checkpoint {self.path.name}: tensor {name!r} must hold finite numbers, got NaN "
                "or infinity; take a checkpoint from before the training diverged"
            )
        self._taken.add(name)
        return tensor

    def blob(self, name: str) -> bytes:
        """An entry that is a file of its own. Raises: CheckpointError."""
        return self.take(name, *self.shape(name)).tobytes()

    def word(self, name: str, allowed: tuple[str, ...]) -> str:
        """An attribute, which must be one of `allowed`. Raises: CheckpointError."""
        found = self.words.get(name)
        if found not in allowed:
            raise CheckpointError(
                f"checkpoint {self.path.name}: {name} must be {' or '.join(allowed)}, got "
                f"{found!r}; this family has no other"
            )
        return found

    def require_all_taken(self) -> None:
        """Raises: CheckpointError, if the file holds a tensor that nobody asked for."""
        left = sorted(set(self._tensors) - self._taken)
        if left:
            raise CheckpointError(
                f"checkpoint {self.path.name}: must hold the tensors of docs/importing.md only, "
                f"got {left[0]!r} {list(self._tensors[left[0]].shape)} beside them; it is a "
                "network of another architecture"
            )


def _few(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:6])
    return f"{shown or 'no tensor'}{' and others' if len(names) > 6 else ''}"
