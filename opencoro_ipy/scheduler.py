"""The event loop is the scheduler: an awaitable that drives a coroutine to its end.

Runs on the loop's thread, which is the main thread. Whose slice is next is the run queue's business; here
is what happens between the slices of one coroutine: futures, delays, pauses, cancellation, limits.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
import time
import types
from collections.abc import Callable, Coroutine as AsyncCoroutine, Generator
from typing import Any

from . import coroutine, monitor, policy
from .coroutine import Coroutine, Suspender
from .runqueue import RunQueue, queue_of
from .states import Complete, Error, Running, State, Suspended


class _ShortInterval:
    """During a slice the other threads (the kernel's I/O) get the GIL soon; between slices, where the loop
    answers and soon sleeps, an early switch would only be in the way. Code that sets the interval during a
    slice is obeyed from then on."""

    __slots__ = ("_outer", "_mine", "_start_ns", "_others_ns")
    users = False  # somebody has set it during a slice
    crowded = False  # in the last slice, other threads computed

    def __enter__(self) -> None:
        self._outer = sys.getswitchinterval()
        if not _ShortInterval.users:
            wanted = policy.CROWDED_INTERVAL_S if _ShortInterval.crowded else policy.SWITCH_INTERVAL_S
            sys.setswitchinterval(min(wanted, self._outer))
        self._mine = sys.getswitchinterval()
        self._start_ns, self._others_ns = time.monotonic_ns(), time.process_time_ns() - time.thread_time_ns()

    def __exit__(self, *exc: object) -> None:
        _ShortInterval.crowded = policy.crowded(
            time.monotonic_ns() - self._start_ns, time.process_time_ns() - time.thread_time_ns() - self._others_ns,
            _ShortInterval.crowded)
        if sys.getswitchinterval() == self._mine:
            sys.setswitchinterval(self._outer)
        else:
            _ShortInterval.users = True


class Execution:
    """Awaitable that drives one coroutine to its end and returns its value or raises its exception.

    pause()/unpause() and throw() may be called from the loop's thread at any time, also from a signal
    handler. Cancelling the task that awaits it raises CancelledError inside the coroutine at its next safe
    point. RuntimeError if it is awaited twice.
    """

    def __init__(self, co: Coroutine, *, cpu_limit_ns: int = 0, on_cpu_limit: Callable[[], None] | None = None,
                 grace_s: float = policy.GRACE_S) -> None:
        self.co = co
        self.paused = False
        self.grace_s = grace_s
        self.task: asyncio.Task[Any] | None = None  #: that awaits it
        self.passed_ns = 0  #: how long others went first (the run queue's)
        self._cpu_limit_ns, self._on_cpu_limit = cpu_limit_ns, on_cpu_limit
        self._loop: asyncio.AbstractEventLoop | None = None
        self._queue: RunQueue | None = None
        self._ended: asyncio.Future[None] | None = None
        self._future: asyncio.Future[Any] | None = None  # what the coroutine waits for
        self._timer: asyncio.TimerHandle | None = None
        self._insist: BaseException | None = None  # thrown again until it takes effect
        self._insist_until_ns = 0
        self._insist_timer: asyncio.TimerHandle | None = None

    # -- from the loop's thread ------------------------------------------------------------------
    def pause(self) -> None:
        """Suspended by the user: no slice until unpause()."""
        self.paused = True

    def unpause(self) -> None:
        """Undo pause()."""
        self.paused = False
        self._wake_soon()

    def throw(self, exception: BaseException, *, insist: bool = False) -> None:
        """Raise inside at the next slice, paused or not. insist: again and again, and after the grace
        period the coroutine is abandoned and the awaiting task gets ``exception``."""
        if self.co.done:
            return
        self.co.throw(exception)
        if insist and self._insist is None:
            self._insist = exception
            self._insist_until_ns = time.monotonic_ns() + int(self.grace_s * 1e9)
        self._wake_soon()

    def _wake_soon(self) -> None:
        if self._loop is not None:  # perhaps inside a signal handler: touch nothing here
            self._loop.call_soon_threadsafe(self._look)

    def _look(self) -> None:
        """Something was thrown, or it is no longer paused."""
        if self._insist is not None and self._insist_timer is None:
            self._insist_later()
        if self.co.done or isinstance(self.co.state, Running):
            return
        if self.co._throw is not None:
            self._stop_waiting()
            self._ready()
        elif self._future is None and self._timer is None:
            self._ready()

    # -- the driver ------------------------------------------------------------------------------
    def __await__(self) -> Generator[Any, Any, Any]:
        if self._loop is not None:
            raise RuntimeError("an execution is awaited once")
        self._loop = loop = asyncio.get_running_loop()
        self.task = asyncio.current_task(loop)
        self._queue = queue_of(loop)
        monitor.acquire()
        try:
            self._ready()
            while not self.co.done:
                self._ended = loop.create_future()
                try:
                    yield from self._ended
                except BaseException as e:
                    self._cancelled(e)
            return self._outcome(self.co.state)
        finally:
            monitor.release()
            self._stop_waiting()
            if self._insist_timer is not None:
                self._insist_timer.cancel()
            self._queue.discard(self)
            if not self.co.done:  # the driver itself was closed: leave no stack to be destroyed at random
                self.co.abandon()

    def _outcome(self, state: State) -> Any:
        if isinstance(state, Complete):
            return state.value
        if isinstance(state, Error):
            raise state.exception
        raise self._insist if self._insist is not None else asyncio.CancelledError()

    def _ready(self) -> None:
        assert self._queue is not None
        if not self.paused or self.co._throw is not None:
            self._queue.add(self)

    def slice(self, queue: RunQueue) -> None:
        """Run one; called by the run queue."""
        co = self.co
        if co.done or (self.paused and co._throw is None):
            return
        queue.watch()
        with _ShortInterval():
            if queue.sees_loop:
                tickless = queue.alone() and not self._cpu_limit_ns and self._insist is None
                state = co.resume(slice_ns=0 if tickless else co.slice_ns, floor_ns=queue.floor_ns(),
                                  until_ns=queue.next_timer_ns())
            else:
                state = co.resume()
        if self._cpu_limit_ns and co.cpu_ns > self._cpu_limit_ns and not co.done:
            self._cpu_limit_ns = 0
            if self._on_cpu_limit is not None:
                self._on_cpu_limit()
        if isinstance(state, Suspended):
            self._wait(state)
        elif self._ended is not None:
            _set(self._ended)

    def _wait(self, state: Suspended) -> None:
        """Be ready again when what the coroutine waits for is there."""
        assert self._loop is not None
        if isinstance(state.value, _Await):
            future = state.value.future
            if future is None:
                self._loop.call_soon(self._woken)
            else:
                self._future = future
                future.add_done_callback(self._woken)
                if self.co._throw is not None:
                    self._look()
        elif state.until:
            self._timer = self._loop.call_at(state.until / 1e9 + 1e-6, self._woken)
        else:
            self._ready()

    def _woken(self, future: asyncio.Future[Any] | None = None) -> None:
        if future is self._future:
            self._stop_waiting()
            self._ready()

    def _stop_waiting(self) -> None:
        future, self._future = self._future, None
        if future is not None and not future.done():
            future.remove_done_callback(self._woken)
            future.cancel()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _cancelled(self, exception: BaseException) -> None:
        """The awaiting task was cancelled (or closed): hand it on into the coroutine."""
        if isinstance(exception, GeneratorExit) or self.co.done:
            raise exception
        self.co._cancelling = True
        if self._future is not None and self._future.cancel():
            return  # as in a Task: CancelledError comes out of what it awaits, when that has ended
        self.co.throw(exception)
        self._look()

    def _insist_later(self) -> None:
        assert self._loop is not None
        self._insist_timer = self._loop.call_later(policy.INSIST_NS / 1e9, self._insist_again)

    def _insist_again(self) -> None:
        """Throw again what has not taken effect, also while it waits; at last abandon the coroutine."""
        co = self.co
        if co.done or self._ended is None:
            return
        assert self._insist is not None
        if not isinstance(co.state, Running):  # else: a nested loop inside its own slice
            if time.monotonic_ns() >= self._insist_until_ns:
                co.abandon()
                _set(self._ended)
                return
            if co._throw is None:
                co.throw(self._insist)
        self._insist_later()
        self._look()


def _set(wake: asyncio.Future[Any]) -> None:
    if not wake.done():
        wake.set_result(None)


class _Await:
    """Sent by a coroutine that waits for an asyncio future (None: one turn of the loop)."""

    __slots__ = ("future",)

    def __init__(self, future: asyncio.Future[Any] | None) -> None:
        self.future = future


def wait_for_future(future: asyncio.Future[Any]) -> Any:
    """Inside a driven coroutine: block until the future is done, while the loop goes on; its result."""
    suspender = Suspender.current()
    if suspender is None:
        raise RuntimeError("not inside a coroutine")
    suspender.suspend_with(_Await(future), _reason="waiting")
    return future.result()


def step(awaitable: AsyncCoroutine[Any, Any, Any]) -> Callable[[Suspender, Any], Any]:
    """A coroutine function that runs an ``async def`` coroutine: each of its steps is preemptible."""

    def body(suspender: Suspender, _: Any) -> Any:
        failure: BaseException | None = None
        while True:
            try:
                future = awaitable.throw(failure) if failure is not None else awaitable.send(None)
            except StopIteration as end:
                return end.value
            failure = None
            if future is not None:
                future._asyncio_future_blocking = False
            try:
                suspender.suspend_with(_Await(future), _reason="waiting")
            except BaseException as e:
                failure = e

    return body


def drive(fn: Callable[..., Any] | AsyncCoroutine[Any, Any, Any], *args: Any, name: str | None = None,
          slice_s: float = policy.SLICE_S, priority: int = 0, context: Any = None, **options: Any) -> Execution:
    """An Execution of ``fn(*args)``, of an ``async def`` function, or of its coroutine object."""
    if inspect.iscoroutinefunction(fn):
        fn = fn(*args)
    if isinstance(fn, (types.CoroutineType, types.GeneratorType)) or inspect.iscoroutine(fn):
        body = step(fn)  # type: ignore[arg-type]
    elif callable(fn):
        def body(_: Suspender, __: Any) -> Any:
            return fn(*args)
    else:
        raise TypeError(f"a callable is wanted, not {type(fn).__name__}")
    label = name if name is not None else getattr(fn, "__name__", None)
    co = Coroutine(body, name=label, slice_s=slice_s, priority=priority, context=context)
    return Execution(co, **options)


async def run(fn: Callable[..., Any], *args: Any, name: str | None = None,
              slice_s: float = policy.SLICE_S, priority: int = 0) -> Any:
    """``fn(*args)`` on the loop's thread, preemptible: it cannot block the loop.

    Returns its value or raises its exception. Cancelling raises CancelledError inside it at its next safe
    point. Context variables are copied, as for a Task. MonitorError off the main thread.
    """
    return await drive(fn, *args, name=name, slice_s=slice_s, priority=priority)


current = coroutine.current
