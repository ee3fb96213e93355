"""An autouse check that every test leaves the process as it found it."""

import gc
import signal
import sys
import threading
import _thread

import pytest

import opencoro_ipy
from opencoro_ipy import _native


@pytest.fixture(autouse=True)
def nothing_is_left_behind():
    before = (signal.getsignal(signal.SIGURG), sys.getswitchinterval(), threading._CRLock)
    yield
    assert not opencoro_ipy.Monitor.running()
    assert (signal.getsignal(signal.SIGURG), sys.getswitchinterval(), threading._CRLock) == before
    assert _native.gc_callback not in gc.callbacks  # hypothesis adds one of its own
    assert threading._CRLock is _thread.RLock
