"""`sekisho-demo`: the main job on one machine."""

import contextlib
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import NoReturn

from rich.console import Console

from demo.data_directory import NotTheDemosDirectory, claim
from demo.system import DemoSystem, Ports, PortTaken, SystemFailed
from feature_store import FeatureStoreError, RedisDidNotStart, RedisServerNotFound
from settings import CommandLine
from settings.command_line import port_number

WATCH_S = 0.2

_DESCRIPTION = """\
The main job on one machine: train two versions of a model on real data, publish them, start Redis, a worker each and
the gateway, load the features, replay patients as traffic, shift the stream half-way, and show what came of it:
latency, the split, accuracy by variant, drift. Then serve on until Ctrl-C.
"""

_EPILOG = """\
examples:
  sekisho-demo                 run, print, and serve until Ctrl-C
  sekisho-demo --once          run, print, and end; the exit code says whether every part worked
  sekisho-demo --port 9080 --admin-port 9081 --worker-ports 9091 9092
"""


def command_line() -> CommandLine:
    """Describe the options."""
    line = CommandLine("sekisho-demo", description=_DESCRIPTION, epilog=_EPILOG)
    line.option("--once", action="store_true", help="end after the results; exit code 0 where every part worked")
    line.option("--port", default=8080, type=port_number, help="the gateway's data port")
    line.option("--admin-port", default=8081, type=port_number, help="the gateway's admin port")
    line.option(
        "--worker-ports",
        nargs=2,
        default=[8091, 8092],
        type=port_number,
        metavar=("PORT", "PORT"),
        help="of the workers",
    )
    line.option(
        "--data-dir",
        type=Path,
        default=Path("sekisho-data/demo"),
        metavar="DIR",
        help="models, configuration, logs and the report; emptied at each start",
    )
    return line


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the demo; exit 0 where every part worked, 1 where one failed, 2 for bad usage."""
    given = command_line().parse_args(arguments)
    console = Console(highlight=False)
    ports = Ports(gateway=given.port, admin=given.admin_port, workers=tuple(given.worker_ports))
    for number in (signal.SIGTERM, signal.SIGINT):  # the latter too: a shell has its background jobs ignore it
        signal.signal(number, _interrupted)
    try:
        ports.refuse_taken()
        lock = claim(given.data_dir)
    except (PortTaken, NotTheDemosDirectory, OSError) as error:
        _fail(error, 2 if isinstance(error, PortTaken | NotTheDemosDirectory) else 1)
    system = DemoSystem(given.data_dir.resolve(), ports)
    code = 1
    try:
        code = _run(system, console, once=given.once, ports=ports)
    except (SystemFailed, RedisDidNotStart, RedisServerNotFound, FeatureStoreError) as error:
        console.print(f"[bold red]sekisho-demo: error:[/] {error}", soft_wrap=True)
    except KeyboardInterrupt:
        console.print("stopping")
        code = 130 if given.once else 0
    finally:
        with contextlib.suppress(KeyboardInterrupt):
            system.stop()
        lock.close()
    sys.exit(code)


def _run(system: DemoSystem, console: Console, *, once: bool, ports: Ports) -> int:
    begun = time.monotonic()
    console.print("loading scikit-learn, LightGBM, ONNX and DuckDB")
    # Here, not above: they take seconds, and nobody should look at an empty screen for so long.
    from demo.results import failures, print_invitation, print_results  # noqa: PLC0415
    from demo.run import Demo  # noqa: PLC0415

    demo = Demo(system, console)
    results = demo.run()
    print_results(console, results)
    problems = [*failures(results), *demo.tell_of_deaths()]
    print_invitation(console, ports.gateway, ports.admin, system.log_directory, ends_now=once)
    for problem in problems:
        console.print(f"[bold red]failed:[/] {problem}", soft_wrap=True)
    if once:
        console.print(f"done in {time.monotonic() - begun:.0f} s")
        return 1 if problems else 0
    console.print("serving until Ctrl-C", style="bold")
    while system.is_served:
        time.sleep(WATCH_S)
        demo.tell_of_deaths()
    return 1


def _interrupted(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _fail(error: Exception, code: int) -> NoReturn:
    print(f"sekisho-demo: error: {error}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
