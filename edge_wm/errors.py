"""The whole exception tree of edge-wm.

    EdgeWmError
    ├── UsageError            asked for something that does not exist or does not fit together
    ├── RefusedError          well-formed, and refused: by trust, by limits, by a guardrail
    │   ├── TrustError        a signature is missing, wrong, unknown or out of its key's scope
    │   ├── MismatchError     two documents do not fit (bundle and robot file, recording and bundle)
    │   └── DeviceRefusal     a microcontroller will not do what it was asked; it says why
    ├── FormatError           a file is not what it claims to be
    │   ├── RobotFileError    the robot file
    │   ├── BundleError       the bundle's container or manifest
    │   ├── ModelError        a graph inside a bundle: structure, limits, parity
    │   │   └── UnsupportedOperation  a sound graph that no step program can express
    │   ├── CheckpointError   what an importer reads: another framework's weights, or their layout
    │   └── RecordingError    a recording
    ├── BackendError          an inference library failed, or is not installed
    └── SystemTroubleError    disk full, permission, missing device: the machine's fault
        └── LinkError         a device cannot be reached: port, silence, or another schema

Messages say what was expected, what was found, where, and what to do next. In the control tick
nothing here is raised for a bad world: that is a verdict with a reason.
"""

from __future__ import annotations


class EdgeWmError(Exception):
    """Anything that edge-wm raises on purpose. `exit_code` is what the command line returns."""

    exit_code = 1


class UsageError(EdgeWmError):
    """The request itself is wrong: change the arguments."""

    exit_code = 2


class RefusedError(EdgeWmError):
    """The request is well-formed and was refused: the message says by what."""

    exit_code = 3


class TrustError(RefusedError):
    """A signature is missing, wrong, by an unknown key, or outside its key's scope."""


class MismatchError(RefusedError):
    """Two documents do not fit each other; both sides are named."""


class DeviceRefusal(RefusedError):
    """A microcontroller understood and refused: mend the cause that the message names."""


class FormatError(EdgeWmError):
    """A file is not what it claims to be: mend or replace the file."""

    exit_code = 3


class RobotFileError(FormatError):
    """The robot file is wrong: the message names the file and the path inside it."""


class BundleError(FormatError):
    """The bundle's container or manifest is damaged, truncated or of an unknown version."""


class ModelError(FormatError):
    """A graph in the bundle is malformed, too large, or does not give its reference outputs."""


class UnsupportedOperation(ModelError):
    """The graph is sound, but no step program can express it: run the function on onnxruntime."""

    def __init__(self, where: str, node: str, operation: str, why: str) -> None:
        super().__init__(
            f"{where}: node {node!r}: {operation} is not among the operations of step programs "
            f"({why}); run this function on onnxruntime"
        )
        self.node = node
        self.operation = operation


class CheckpointError(FormatError):
    """Foreign weights are damaged or of another architecture: the message names the tensor."""


class RecordingError(FormatError):
    """The recording is truncated, damaged, or lacks what was asked for."""


class BackendError(EdgeWmError):
    """An inference library failed or is not installed: the message says how to get it."""


class SystemTroubleError(EdgeWmError):
    """The machine is in the way (disk full, permission, missing device): fix that, try again."""


class LinkError(SystemTroubleError):
    """A device cannot be reached or understood: the message names the port and what to mend."""
