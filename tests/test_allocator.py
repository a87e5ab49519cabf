"""Memory that is freed stays with the process."""

from __future__ import annotations

import subprocess
import sys

import pytest

#: Takes, writes and frees 64 MiB twice; prints the page faults of the second time.
_TAKE_TWICE = """
import resource
import numpy as np
{before}
def take():
    np.ones(2**23)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
print(-take() + take())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the C library is glibc on Linux only")
def test_freed_memory_is_taken_again_without_page_faults() -> None:
    keep = "from tunetrail.allocator import keep_freed_memory; keep_freed_memory()"
    faults = [
        int(subprocess.check_output([sys.executable, "-c", _TAKE_TWICE.format(before=before)]))
        for before in ("", keep)
    ]
    assert faults[0] > 100, "this system does not give it back: nothing to test"
    assert faults[1] < 20
