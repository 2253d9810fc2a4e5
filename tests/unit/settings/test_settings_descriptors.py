import resource
import subprocess
import sys

import pytest

from settings.descriptors import raise_descriptor_limit

LOWER = """
import resource
from settings.descriptors import raise_descriptor_limit
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
print(raise_descriptor_limit(), hard)
"""


def test_the_soft_limit_becomes_the_hard_one():
    told = subprocess.run([sys.executable, "-c", LOWER], capture_output=True, text=True, check=True).stdout.split()
    assert told[0] == told[1]


def test_where_the_kernel_refuses_what_was_there_stays(monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> None:
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert raise_descriptor_limit() == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
