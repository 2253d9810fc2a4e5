"""What of an experiment's results is wanted."""

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from analysis.experiment_results.disagreement import DisagreementRule


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultsRequest:
    """What is wanted, beside the experiment. start, end: which rows count, `start <= ts < end`, each open where None.

    outcomes_dir: where it is not beside `predictions`. rows_served: how many rows of the model were served in the
    window, to state what the log lacks. show_despite_srm: effects although the sample ratio fails.
    """

    start: datetime | None = None
    end: datetime | None = None
    outcomes_dir: Path | None = None
    rows_served: int | None = None
    show_despite_srm: bool = False
    rule: DisagreementRule = field(default_factory=DisagreementRule)
    threads: int | None = None
