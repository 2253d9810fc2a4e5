"""Recompute every logged assignment from the configuration history: is every answer explained by its revision?"""

from analysis.assignment_replay.history import DamagedHistory
from analysis.assignment_replay.replay import replay
from analysis.assignment_replay.replay_command import add_replay_options, replay_assignments
from analysis.assignment_replay.replay_report import ReplayReport, encode_replay
from analysis.assignment_replay.replay_table import render_replay

__all__ = [
    "DamagedHistory",
    "ReplayReport",
    "add_replay_options",
    "encode_replay",
    "render_replay",
    "replay",
    "replay_assignments",
]
