"""An autouse check that every test leaves the process as it found it."""

import gc
import signal
import sys
import threading
import _thread

import pytest

import opencoro_ipy


@pytest.fixture(autouse=True)
def nothing_is_left_behind():
    before = (signal.getsignal(signal.SIGURG), sys.getswitchinterval(), list(gc.callbacks), threading._CRLock)
    yield
    assert not opencoro_ipy.Monitor.running()
    assert (signal.getsignal(signal.SIGURG), sys.getswitchinterval(), list(gc.callbacks), threading._CRLock) == before
    assert threading._CRLock is _thread.RLock
