"""What protects the callers of one version, as one visible list."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatchRules:
    """In the order in which a batch meets them. Each can be left out, which is how their worth is measured.

    The order matters: a replica is chosen among those that are not ejected; what fails there is sent once more, and
    what is late is sent a second time, both elsewhere and both paid for from one budget, so that a pool that is slow
    as a whole is not asked for more.
    """

    eject: bool = True
    """Give nothing to a replica that fails, is silent or is far slower than its peers."""

    balance: bool = True
    """Choose the replica that holds least; otherwise any, at random."""

    retry: bool = True
    """Send rows once more, to another replica, where theirs failed."""

    hedge: bool = True
    """Send rows a second time, to another replica, where an answer takes longer than 95 % of them do."""

    budget: bool = True
    """Bound the two above by a share of the requests."""
