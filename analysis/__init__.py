"""Offline reading of the prediction log: baseline profiles, drift, and outcomes by variant."""

from analysis.compare import compare
from analysis.drift_report import DriftReport, Thresholds, encode_report
from analysis.errors import AnalysisError
from analysis.html_report import write_html
from analysis.outcomes import VariantOutcome, outcomes_by_variant
from analysis.profile import Profile, encode_profile, read_profile
from analysis.profile_log import profile_log
from analysis.profiling import make_profile
from analysis.prometheus_text import prometheus_text
from analysis.terminal_table import render_table

__all__ = [
    "AnalysisError",
    "DriftReport",
    "Profile",
    "Thresholds",
    "VariantOutcome",
    "compare",
    "encode_profile",
    "encode_report",
    "make_profile",
    "outcomes_by_variant",
    "profile_log",
    "prometheus_text",
    "read_profile",
    "render_table",
    "write_html",
]
