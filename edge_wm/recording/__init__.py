"""Recordings: every run as one MCAP file that Foxglove opens and `edge-wm replay` re-executes.

    recorder = Recorder("run.mcap", robot, header)      recording = open_recording("run.mcap")
    recorder.record(sample)                              for number, event in recording.events():
    recorder.record(PlanBegin(tick, now_ns, goal))           ...
    recorder.close()                                     steps = list(recording.only(Step))

In the file: the samples as standard ROS 2 sensor messages on the robot file's topics (which
carry them exactly, see `samples`), every other event as a message of our own under
`/edge_wm/record/` (see `messages`), and standard messages for people to look at (see `views`).
The order of the messages is the order of the events; their numbers are counted from 0, and a
`Gap` message says where some are missing. The header is the metadata record `edge_wm`.
"""

from __future__ import annotations

from edge_wm.recording.events import (
    Activate,
    Event,
    Header,
    PlanBegin,
    PlanEnd,
    Prediction,
    Request,
    Step,
    Truth,
    World,
)
from edge_wm.recording.machine import machine_class
from edge_wm.recording.reader import Recording, open_recording
from edge_wm.recording.recorder import Recorder, Statistics

__all__ = [
    "Activate",
    "Event",
    "Header",
    "PlanBegin",
    "PlanEnd",
    "Prediction",
    "Recorder",
    "Recording",
    "Request",
    "Statistics",
    "Step",
    "Truth",
    "World",
    "machine_class",
    "open_recording",
]
