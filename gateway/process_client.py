"""Asks a gateway process of this machine through its own Unix socket."""

import asyncio
from pathlib import Path
from typing import Final

ANSWER_BYTES_MAX: Final = 16 * 1024 * 1024
TIMEOUT_S: Final = 2.0


class ProcessSilent(OSError):
    """A process did not give an answer; the message says why."""


async def get(socket_path: Path, target: str) -> tuple[int, bytes]:
    """GET a path (with its query). Returns status and body. Raises ProcessSilent."""
    try:
        async with asyncio.timeout(TIMEOUT_S):
            reader, writer = await asyncio.open_unix_connection(str(socket_path), limit=ANSWER_BYTES_MAX)
            try:
                # HTTP/1.0: the body ends where the connection does, so that nothing is left to parse.
                writer.write(f"GET {target} HTTP/1.0\r\nhost: gateway\r\n\r\n".encode())
                answer = await reader.read(ANSWER_BYTES_MAX)
                while chunk := await reader.read(ANSWER_BYTES_MAX - len(answer)):
                    answer += chunk
            finally:
                writer.close()
    except (OSError, TimeoutError) as error:
        raise ProcessSilent(f"{socket_path.name}: {error or 'no answer in time'}") from error
    head, _, body = answer.partition(b"\r\n\r\n")
    status = head.split(b" ", 2)[1:2]
    if not status or not status[0].isdigit():
        raise ProcessSilent(f"{socket_path.name}: what it sent is no answer")
    return int(status[0]), body
