"""The event loop is the scheduler: an awaitable that drives a coroutine, and a turnstile before it.

Runs on the loop's thread, which is the main thread. A preempted coroutine goes through the turnstile of
its loop: one slice at a time, the loop's own work first (bounded, see policy.py), then who is next.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
import time
import types
import weakref
from collections.abc import Callable, Coroutine as AsyncCoroutine, Generator
from typing import Any

from . import _native, coroutine, monitor, policy
from .coroutine import Coroutine, Suspender
from .states import Cancelled, Complete, Error, Suspended

_turnstiles: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Turnstile] = weakref.WeakKeyDictionary()
_driven = 0  # executions in flight; while there is one, the switch interval is short
_old_interval: float | None = None


def _count(delta: int) -> None:
    global _driven, _old_interval
    _driven += delta
    if delta > 0 and _driven == 1:
        _old_interval = sys.getswitchinterval()
        sys.setswitchinterval(min(policy.SWITCH_INTERVAL_S, _old_interval))
    elif _driven == 0 and _old_interval is not None:
        if sys.getswitchinterval() <= policy.SWITCH_INTERVAL_S * 1.01:  # else the user set it: keep that
            sys.setswitchinterval(_old_interval)
        _old_interval = None


class Turnstile:
    """One slice at a time on one loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)
        self._waiting: list[tuple[Execution, asyncio.Future[None], list[int]]] = []
        self._pumping = False
        self._granted = False  # somebody may run and has not run yet
        self._passed: list[list[int]] = []  # who came before the one that runs: ns each was passed over
        self._left_ns = 0  # when the last slice ended, and how long it was
        self._last_slice_ns = 0
        self.ready = getattr(loop, "_ready", None)
        self.scheduled = getattr(loop, "_scheduled", None)
        selector = getattr(loop, "_selector", None)
        try:
            self.fd = selector.fileno() if selector is not None else -1
        except (AttributeError, ValueError):
            self.fd = -1
        if type(self.ready).__name__ != "deque":
            self.ready = None

    @property
    def sees_loop(self) -> bool:
        """Can the monitor see that the loop has something to do?"""
        return self.fd >= 0 and self.ready is not None and self.scheduled is not None

    def next_timer_ns(self) -> int:
        """Monotonic ns of the loop's next timer, 0: none."""
        return int(self.scheduled[0]._when * 1e9) if self.scheduled else 0

    async def pass_(self, execution: Execution) -> None:
        """Returns when the execution may run a slice."""
        loop = self._loop()
        assert loop is not None
        turn: asyncio.Future[None] = loop.create_future()
        entry = (execution, turn, [0])
        self._waiting.append(entry)
        self._pump_later(loop)
        try:
            await turn
        except BaseException:
            if entry in self._waiting:
                self._waiting.remove(entry)
            raise

    def left(self, slice_ns: int) -> None:
        """The one who was let through has run for that long (0: it gave its turn back)."""
        self._granted = False
        self._left_ns, self._last_slice_ns = time.monotonic_ns(), slice_ns
        for passed in self._passed:
            passed[0] += slice_ns
        loop = self._loop()
        if self._waiting and loop is not None:
            self._pump_later(loop)

    def alone(self) -> bool:
        """Does nobody else wait for a slice?"""
        return not self._waiting

    def _pump_later(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._pumping and not self._granted:
            self._pumping = True
            loop.call_soon(lambda: loop.call_soon(self._pump))  # one whole turn, with its look at I/O

    def _pump(self) -> None:
        loop = self._loop()
        self._waiting = [w for w in self._waiting if not w[1].done()]
        if loop is None or not self._waiting:
            self._pumping = False
            return
        used = time.monotonic_ns() - self._left_ns
        if self.ready and used < policy.hub_bound_ns(self._last_slice_ns):
            loop.call_soon(self._pump)  # the loop goes first
            return
        index = policy.pick([(e.co.priority, e.co.preemptions == 0, passed[0])
                             for e, _, passed in self._waiting])
        self._passed = [passed for _, _, passed in self._waiting[:index]]
        _, turn, _ = self._waiting.pop(index)
        turn.set_result(None)
        self._pumping, self._granted = False, True


def turnstile_of(loop: asyncio.AbstractEventLoop) -> Turnstile:
    """The loop's turnstile; made, and watched by the monitor, on first use."""
    found = _turnstiles.get(loop)
    if found is None:
        found = _turnstiles[loop] = Turnstile(loop)
    return found


class Execution:
    """Awaitable that drives one coroutine to its end and returns its value or raises its exception.

    pause()/unpause() and throw() may be called from the loop at any time. Cancelling the task that awaits
    it raises CancelledError inside the coroutine at its next safe point.
    """

    def __init__(self, co: Coroutine, *, cpu_limit_ns: int = 0, on_cpu_limit: Callable[[], None] | None = None,
                 grace_s: float = policy.GRACE_S) -> None:
        self.co = co
        self.paused = False
        self.grace_s = grace_s
        self._cpu_limit_ns, self._on_cpu_limit = cpu_limit_ns, on_cpu_limit
        self._wake: asyncio.Future[Any] | None = None  # what the driving task waits for now
        self._insist: BaseException | None = None  # thrown again until it takes effect
        self._insist_until_ns = self._insist_next_ns = 0

    # -- from the loop ---------------------------------------------------------------------------
    def pause(self) -> None:
        """Suspended by the user: no slice until unpause()."""
        self.paused = True

    def unpause(self) -> None:
        """Undo pause()."""
        self.paused = False
        self._kick()

    def throw(self, exception: BaseException, *, insist: bool = False) -> None:
        """Raise inside at the next slice, paused or not. insist: again and again, and after the grace
        period the coroutine is abandoned and the awaiting task gets ``exception``."""
        if self.co.done:
            return
        self.co.throw(exception)
        if insist and self._insist is None:
            self._insist = exception
            now = time.monotonic_ns()
            self._insist_until_ns = now + int(self.grace_s * 1e9)
            self._insist_next_ns = now + policy.INSIST_NS
        self._kick()

    def _kick(self) -> None:
        wake = self._wake
        if wake is not None and not wake.done():
            wake.get_loop().call_soon_threadsafe(_set, wake)

    # -- the driver ------------------------------------------------------------------------------
    def __await__(self) -> Generator[Any, Any, Any]:
        loop = asyncio.get_running_loop()
        gate = turnstile_of(loop)
        co = self.co
        monitor.acquire()
        _count(+1)
        value: Any = None
        try:
            while True:
                try:
                    if self.paused and co._throw is None:
                        yield from self._wait_woken(loop)
                        continue
                    yield from gate.pass_(self).__await__()
                except BaseException as e:
                    self._cancelled(e)
                if self.paused and co._throw is None:  # paused while it waited for its turn
                    gate.left(0)
                    continue
                state = self._slice(gate, value)
                value = None
                if isinstance(state, Suspended):
                    if not self._still_worth_it():
                        assert self._insist is not None
                        raise self._insist
                    value = yield from self._between(loop, state)
                elif isinstance(state, Complete):
                    return state.value
                elif isinstance(state, Error):
                    raise state.exception
                elif isinstance(state, Cancelled):
                    raise self._insist if self._insist is not None else asyncio.CancelledError()
        finally:
            _count(-1)
            monitor.release()
            if not co.done:  # the driver itself was closed: leave no stack to be destroyed at random
                co.abandon()

    def _slice(self, gate: Turnstile, value: Any) -> Any:
        co = self.co
        _native.watch(gate.fd, gate.ready) if gate.sees_loop else _native.watch(-1, None)
        tickless = gate.sees_loop and gate.alone() and not self._cpu_limit_ns and self._insist is None
        start = time.monotonic_ns()
        try:
            state = co.resume(value, slice_ns=0 if tickless else co.slice_ns,
                              floor_ns=policy.FLOOR_NS if gate.sees_loop else 0,
                              until_ns=gate.next_timer_ns() if gate.sees_loop else 0)
        finally:
            gate.left(time.monotonic_ns() - start)
        if self._cpu_limit_ns and co.cpu_ns > self._cpu_limit_ns and not co.done:
            self._cpu_limit_ns = 0
            if self._on_cpu_limit is not None:
                self._on_cpu_limit()
        return state

    def _between(self, loop: asyncio.AbstractEventLoop, state: Suspended) -> Generator[Any, Any, Any]:
        """Wait for what the coroutine waits for; what its suspend_with returns."""
        if isinstance(state.value, _Await):
            try:
                state.value.outcome = yield from self._wait_for(loop, state.value)
            except BaseException as e:
                self._cancelled(e)
        elif state.until:
            try:
                yield from self._wait_woken(loop, state.until)
            except BaseException as e:
                self._cancelled(e)
        return None

    def _wait_for(self, loop: asyncio.AbstractEventLoop, wanted: _Await) -> Generator[Any, Any, Any]:
        future = wanted.future
        if future is None:
            yield
            return None
        while not future.done() and self.co._throw is None:
            self._wake = wake = loop.create_future()
            woken = functools.partial(_set, wake)
            future.add_done_callback(woken)
            try:
                yield from wake
            finally:
                self._wake = None
                future.remove_done_callback(woken)
        if not future.done():
            future.cancel()
        return None

    def _wait_woken(self, loop: asyncio.AbstractEventLoop, until_ns: int = 0) -> Generator[Any, Any, None]:
        self._wake = wake = loop.create_future()
        timer = None
        if until_ns:
            timer = loop.call_at(until_ns / 1e9 + 1e-6, _set, wake)
        try:
            yield from wake
        finally:
            self._wake = None
            if timer is not None:
                timer.cancel()

    def _cancelled(self, exception: BaseException) -> None:
        """The awaiting task was cancelled (or closed): hand it on into the coroutine."""
        if isinstance(exception, GeneratorExit) or self.co.done:
            raise exception
        self.co._cancelling = True
        self.co.throw(exception)

    def _still_worth_it(self) -> bool:
        """Throw again what has not taken effect; after the grace period abandon the coroutine."""
        if self._insist is None:
            return True
        now = time.monotonic_ns()
        if now < self._insist_until_ns:
            if self.co._throw is None and now >= self._insist_next_ns:
                self._insist_next_ns = now + policy.INSIST_NS
                self.co.throw(self._insist)
            return True
        self.co.abandon()
        return False


def _set(wake: asyncio.Future[Any], _: Any = None) -> None:
    if not wake.done():
        wake.set_result(None)


class _Await:
    """Sent by a coroutine that waits for an asyncio future (None: one turn of the loop)."""

    __slots__ = ("future", "outcome")

    def __init__(self, future: asyncio.Future[Any] | None) -> None:
        self.future, self.outcome = future, None


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
