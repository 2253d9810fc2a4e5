"""How many files and connections this process may have open at one time."""

import contextlib
import resource


def raise_descriptor_limit() -> int:
    """Raise the soft limit of open descriptors to the hard one, and return what holds now; negative: there is none.

    The soft one is 1,024 nearly everywhere, for the sake of programs that call select(); nothing here does, and a
    gateway that is asked by a thousand callers would have none left for its workers.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # where the kernel bounds it otherwise, what was there stays
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
