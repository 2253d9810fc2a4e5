"""The gateway's settings: frozen, read once by `__main__`, passed down."""

from dataclasses import dataclass
from pathlib import Path

from settings.tls import ClientTls, ServerTls


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that a gateway process is told at its start."""

    config: Path
    """`models.yaml`."""

    experiments: Path | None
    """A YAML file of experiments, or a directory of them."""

    redis: str
    host: str
    port: int
    admin_host: str
    admin_port: int
    processes: int
    """How many processes share the data port."""

    process_socket: Path | None
    """In one of several processes: the Unix socket on which it serves its admin API to the supervisor."""

    keys: Path | None
    """`keys.yaml`; None: nobody needs a key."""

    tls: ServerTls | None
    """Of both ports; None: no TLS."""

    worker_tls: ClientTls
    """What workers that are reached over TLS are checked by, and shown."""

    state_dir: Path
    """Where last good configurations and run-time changes are kept."""

    log_dir: Path
    log_file_seconds: float
    """Age at which a log file is closed and becomes readable Parquet."""

    requests_in_flight_max: int
    shutdown_grace_s: float
    """How long to serve on after SIGTERM, while load balancers take notice."""
