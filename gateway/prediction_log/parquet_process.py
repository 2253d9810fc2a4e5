"""The process that makes Parquet of closed streams: started, given names, heard, and started again where it died.

Compressing a file takes seconds of processor time and memory for its rows. Beside the event loop that would be a core
and the kernel's scheduler on equal terms; in a process of its own it yields to serving.
"""

import contextlib
import logging
import os
import select
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import IO, Final

import msgspec

from gateway.prediction_log.parquet_file import Conversion

ATTEMPTS_MAX: Final = 3
"""Processes that one stream may take down with it; then it is left for the next start, and others have their turn."""

RESTART_DELAY_S: Final = 0.5
RESTART_DELAY_MAX_S: Final = 30.0
"""From a process's death to the next one's start: doubled at each death, until a stream was finished."""

SILENCE_S_MAX: Final = 300.0
"""A process that has streams and says nothing for so long hangs, and is ended: the largest takes seconds."""

READ_BYTES: Final = 64 * 1024
POLL_S: Final = 0.05

logger = logging.getLogger(__name__)


class ParquetProcess:
    """One child, for one thread; only `rows_unfinished` may be read by others. clock: seconds.

    The child ends when its input does, so with this process, however that ends.
    """

    def __init__(self, root: Path, clock: Callable[[], float]) -> None:
        self._root, self._clock = root, clock
        self._process: subprocess.Popen[bytes] | None = None
        self._unfinished: dict[str, int] = {}  # rows by name, in the order of the giving
        self._unsent: deque[str] = deque()
        self._heard = b""
        self._deaths_at: dict[str, int] = {}
        self._delay_s = RESTART_DELAY_S
        self._starts_at = 0.0
        self._heard_at = 0.0

    @property
    def rows_unfinished(self) -> int:
        """Rows of streams that were given and are not Parquet yet."""
        return sum(list(self._unfinished.values()))

    def give(self, stream: Path, rows: int) -> None:
        """Have Parquet made of a stream. Never waits."""
        if not self._unfinished:
            self._heard_at = self._clock()
        self._unfinished[stream.name] = rows
        self._unsent.append(stream.name)

    def tend(self) -> None:
        """Hear what the process says, start one where there is none, and send it what was given. Never waits."""
        if self._process is not None:
            self._hear(self._process)
        if self._process is not None and self._unfinished and self._clock() - self._heard_at > SILENCE_S_MAX:
            self._died(self._process)
        if self._process is None and self._clock() >= self._starts_at:
            self._start()
        if self._process is not None:
            self._send(self._process)

    def finish(self, timeout_s: float) -> bool:
        """Wait until every stream that was given is finished, and end the process. Returns whether it was in time.

        A process that was not is killed: its streams stay, for the next start.
        """
        deadline = self._clock() + timeout_s
        while self._unfinished and self._clock() < deadline:
            self._starts_at = min(self._starts_at, self._clock() + RESTART_DELAY_S)
            self.tend()
            self._wait_for_words()
        process = self._process
        if process is not None:
            _pipe(process.stdin).close()
            try:
                process.wait(max(0.0, deadline - self._clock()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                facts = {"pid": process.pid, "rows_unfinished": self.rows_unfinished}
                logger.error("the log's Parquet process hung and was killed: streams stay", extra=facts)  # noqa: TRY400 - no traceback says more
            _pipe(process.stdout).close()
            self._process = None
        return not self._unfinished

    def _start(self) -> None:
        try:
            process = subprocess.Popen(  # noqa: S603 - this program's own module
                [sys.executable, "-m", "gateway.prediction_log", str(self._root)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,  # the terminal's Ctrl-C is for the gateway, which has streams to close first
            )
        except OSError as error:
            logger.error("the log's Parquet process cannot be started", extra={"reason": str(error)})  # noqa: TRY400 - the reason says all
            self._back_off()
            return
        for pipe in (process.stdin, process.stdout):
            os.set_blocking(_pipe(pipe).fileno(), False)
        self._process, self._heard, self._heard_at = process, b"", self._clock()
        self._unsent = deque(self._unfinished)

    def _send(self, process: subprocess.Popen[bytes]) -> None:
        with contextlib.suppress(BrokenPipeError):  # it died: the end of what it says will tell
            # Less than PIPE_BUF bytes go whole or not at all; None says that the pipe is full.
            while self._unsent and _pipe(process.stdin).write(os.fsencode(self._unsent[0]) + b"\n") is not None:
                self._unsent.popleft()

    def _hear(self, process: subprocess.Popen[bytes]) -> None:
        while (said := _pipe(process.stdout).read(READ_BYTES)) is not None:
            if not said:
                self._died(process)
                return
            *lines, self._heard = (self._heard + said).split(b"\n")
            try:
                conversions = [msgspec.json.decode(line, type=Conversion) for line in lines]
            except msgspec.DecodeError:
                self._died(process)  # nothing that it says can be trusted
                return
            for conversion in conversions:
                self._converted(conversion)

    def _converted(self, conversion: Conversion) -> None:
        name, self._heard_at = conversion.stream, self._clock()
        self._unfinished.pop(name, None)
        self._deaths_at.pop(name, None)
        self._delay_s = RESTART_DELAY_S
        if conversion.fault is not None:
            _say_it_stays(name, conversion.fault)
        if conversion.cut is not None:
            logger.warning("a log stream ends in the middle of a batch", extra={"file": name, "reason": conversion.cut})

    def _died(self, process: subprocess.Popen[bytes]) -> None:
        process.kill()
        code = process.wait()
        self._process = None
        for pipe in (process.stdin, process.stdout):
            _pipe(pipe).close()
        logger.error("the log's Parquet process died", extra={"pid": process.pid, "code": code})
        # It takes streams in the order of the giving, so the first is the one that it died at.
        at = next(iter(self._unfinished), None)
        if at is not None:
            self._deaths_at[at] = self._deaths_at.get(at, 0) + 1
            if self._deaths_at[at] >= ATTEMPTS_MAX:
                del self._unfinished[at], self._deaths_at[at]
                _say_it_stays(at, f"{ATTEMPTS_MAX} processes died of it")
        self._back_off()

    def _back_off(self) -> None:
        self._starts_at = self._clock() + self._delay_s
        self._delay_s = min(2 * self._delay_s, RESTART_DELAY_MAX_S)

    def _wait_for_words(self) -> None:
        poll = select.poll()
        if self._process is not None:
            poll.register(_pipe(self._process.stdout), select.POLLIN)
        poll.poll(POLL_S * 1_000)


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None  # each process is started with both
    return pipe


def _say_it_stays(name: str, reason: str) -> None:
    logger.error("a log file stays a stream", extra={"file": name, "reason": reason})
