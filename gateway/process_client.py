"""Asks a gateway process of this machine through its own Unix socket."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Final

ANSWER_BYTES_MAX: Final = 16 * 1024 * 1024
TIMEOUT_S: Final = 2.0
CHANGE_TIMEOUT_S: Final = 10.0
"""For an answer to a change, which is written to disk, and waits a while for a version to be ready."""


class ProcessSilent(OSError):
    """A process did not give an answer; the message says why."""


async def get(socket_path: Path, target: str) -> tuple[int, bytes]:
    """GET a path (with its query). Returns status and body. Raises ProcessSilent."""
    return await ask(socket_path, "GET", target, (), b"", TIMEOUT_S)


async def ask(
    socket_path: Path, method: str, target: str, headers: Sequence[tuple[bytes, bytes]], body: bytes, timeout_s: float
) -> tuple[int, bytes]:
    """Send one request; the headers are such as a server has read. Returns status and body. Raises ProcessSilent."""
    status, _, content = await ask_whole(socket_path, method, target, headers, body, timeout_s)
    return status, content


async def ask_whole(
    socket_path: Path, method: str, target: str, headers: Sequence[tuple[bytes, bytes]], body: bytes, timeout_s: float
) -> tuple[int, dict[bytes, bytes], bytes]:
    """Send one request as `ask`. Returns status, headers (names in lower case) and body. Raises ProcessSilent."""
    lines = b"".join(b"%b: %b\r\n" % header for header in headers)
    head = b"%b %b HTTP/1.0\r\nhost: gateway\r\n%bcontent-length: %d\r\n\r\n"
    request = head % (method.encode(), target.encode("latin-1"), lines, len(body)) + body
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_unix_connection(str(socket_path), limit=ANSWER_BYTES_MAX)
            try:
                # HTTP/1.0: the body ends where the connection does, so that nothing is left to parse.
                writer.write(request)
                answer = await reader.read(ANSWER_BYTES_MAX)
                while chunk := await reader.read(ANSWER_BYTES_MAX - len(answer)):
                    answer += chunk
            finally:
                writer.close()
    except (OSError, TimeoutError) as error:
        raise ProcessSilent(f"{socket_path.name}: {error or 'no answer in time'}") from error
    answered, _, content = answer.partition(b"\r\n\r\n")
    status = answered.split(b" ", 2)[1:2]
    if not status or not status[0].isdigit():
        raise ProcessSilent(f"{socket_path.name}: what it sent is no answer")
    fields = (line.partition(b":") for line in answered.split(b"\r\n")[1:])
    return int(status[0]), {name.strip().lower(): value.strip() for name, _, value in fields}, content
