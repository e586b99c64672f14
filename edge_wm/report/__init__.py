"""The report of a run, from its recording alone: one page and its pictures.

    story.py   reads the recording once, into plain arrays and counts
    plots.py   draws them (the only file that needs matplotlib)
    page.py    lays them out as one HTML file that needs nothing else

Whatever a recording lacks (a simulation's truth, predictions, plans) is left out, and the page
says what is missing.
"""

from __future__ import annotations

from edge_wm.report.page import write_report
from edge_wm.report.story import Story, Summary, read_story

__all__ = ["Story", "Summary", "read_story", "write_report"]
