"""Results of experiments, offline, from the prediction and outcome logs."""

from analysis.experiment_results.disagreement import DisagreementRule
from analysis.experiment_results.report import ExperimentResults, encode_results, read_results
from analysis.experiment_results.request import ResultsRequest
from analysis.experiment_results.results import experiment_results

__all__ = [
    "DisagreementRule",
    "ExperimentResults",
    "ResultsRequest",
    "encode_results",
    "experiment_results",
    "read_results",
]
