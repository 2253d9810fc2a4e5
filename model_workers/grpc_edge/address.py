"""Where a gRPC port listens. Imports no gRPC, so that every worker can carry the setting."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GrpcAddress:
    """Host and port. `flag` moves the port, for the message where it is taken."""

    host: str
    port: int
    flag: str
