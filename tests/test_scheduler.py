"""run() on real asyncio loops, and the policy with plain numbers."""

import asyncio
import contextvars
import subprocess
import sys
import threading
import time

import pytest
import uvloop

import opencoro_ipy as oc
from opencoro_ipy import policy, runqueue, scheduler

VAR = contextvars.ContextVar("VAR", default=0)


def spin(n):
    x = 0
    for i in range(n):
        x += i * i
    return x


def dead_loop():
    while True:
        pass


def test_values_and_exceptions_come_back():
    async def main():
        assert await oc.run(spin, 1000) == spin(1000)
        with pytest.raises(ZeroDivisionError):
            await oc.run(lambda: 1 / 0)

    asyncio.run(main())


def test_a_dead_loop_does_not_block_the_loop_and_can_be_cancelled():
    async def main():
        task = asyncio.create_task(oc.run(dead_loop))
        for _ in range(20):
            await asyncio.sleep(0.002)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


def test_timeouts_are_asyncios_own():
    async def main():
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(oc.run(dead_loop), 0.05)
        tasks = [asyncio.create_task(oc.run(dead_loop)), asyncio.create_task(oc.run(spin, 10))]
        done, pending = await asyncio.wait(tasks, timeout=5, return_when=asyncio.FIRST_COMPLETED)
        assert done == {tasks[1]} and pending == {tasks[0]}
        tasks[0].cancel()
        await asyncio.wait(tasks)

    asyncio.run(main())


def test_cancellation_can_be_cleaned_up_inside():
    seen = []

    def body():
        try:
            seen.append("started")
            dead_loop()
        except asyncio.CancelledError:
            seen.append(sum(range(100_000)))
            raise

    async def main():
        task = asyncio.create_task(oc.run(body))
        while not seen:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert seen == ["started", sum(range(100_000))]


def test_context_variables_behave_as_in_a_task():
    def body(value):
        assert VAR.get() == 7
        VAR.set(value)
        spin(300_000)
        return VAR.get()

    async def main():
        VAR.set(7)
        got = await asyncio.gather(*(oc.run(body, i, slice_s=0.001) for i in range(4)))
        assert got == [0, 1, 2, 3]
        assert VAR.get() == 7

    asyncio.run(main())


def test_async_functions_are_preempted_between_their_awaits():
    async def cell():
        await asyncio.sleep(0.01)
        assert asyncio.current_task() is not None
        x = spin(500_000)
        await asyncio.sleep(0)
        return x

    async def main():
        ticks = 0
        task = asyncio.create_task(oc.run(cell, slice_s=0.001))
        while not task.done():
            await asyncio.sleep(0.001)
            ticks += 1
        assert await task == spin(500_000)
        assert ticks > 10

    asyncio.run(main())


def test_smaller_priorities_run_first_and_larger_ones_do_not_starve():
    async def main():
        fast = asyncio.create_task(oc.run(spin, 3_000_000, priority=-1, slice_s=0.002))
        slow = asyncio.create_task(oc.run(spin, 3_000_000, priority=5, slice_s=0.002))
        done, _ = await asyncio.wait({fast, slow}, return_when=asyncio.FIRST_COMPLETED)
        assert done == {fast}
        await slow

    asyncio.run(main())


def test_the_switch_interval_is_short_only_while_something_runs():
    before = sys.getswitchinterval()

    async def main():
        return await oc.run(sys.getswitchinterval)

    assert asyncio.run(main()) == pytest.approx(policy.SWITCH_INTERVAL_S, rel=0.01)
    assert sys.getswitchinterval() == before


def test_equal_coroutines_take_turns():
    def count(until):
        while time.monotonic() < until:
            pass
        return oc.current().preemptions

    async def main():
        end = time.monotonic() + 1.0
        return await asyncio.gather(*(oc.run(count, end, slice_s=0.005) for _ in range(4)))

    slices = asyncio.run(main())
    assert min(slices) > 5 and max(slices) - min(slices) <= 1, slices


def test_off_the_main_thread_is_a_clear_error():
    caught = []

    def other():
        async def main():
            try:
                await oc.run(spin, 1)
            except oc.MonitorError as e:
                caught.append(str(e))

        asyncio.run(main())

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert "main thread" in caught[0]


def test_what_swallows_a_cancellation_and_waits_again_is_told_again_and_then_abandoned():
    told = []

    async def deaf():
        while True:
            try:
                await asyncio.sleep(1000)
            except BaseException as e:
                told.append(e)

    async def main():
        execution = scheduler.drive(deaf, grace_s=1.0)
        task = asyncio.ensure_future(_awaited(execution))
        await asyncio.sleep(0.05)
        execution.throw(KeyError("end"), insist=True)
        with pytest.raises(KeyError):
            await asyncio.wait_for(task, 20)

    asyncio.run(main())
    assert len(told) >= 2 and all(isinstance(e, KeyError) for e in told)


async def _awaited(execution):
    return await execution


def test_a_loop_inside_a_slice_runs_other_coroutines():
    """What nest_asyncio does, in a process of its own since it patches asyncio."""
    code = """if True:
        import asyncio, nest_asyncio2, opencoro_ipy as oc
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        nest_asyncio2.apply(loop)
        def spin(n):
            return sum(i for i in range(n))
        def nested():
            return loop.run_until_complete(oc.run(spin, 300_000))
        async def main():
            return await asyncio.gather(*(oc.run(f, slice_s=0.001) for f in [nested] * 3),
                                        *(oc.run(spin, 300_000, slice_s=0.001) for _ in range(3)))
        assert loop.run_until_complete(main()) == [spin(300_000)] * 6
    """
    ran = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0 and "Exception" not in ran.stderr, ran.stderr


def test_policy_crowded():
    assert policy.crowded(10_000_000, 9_000_000, False) and not policy.crowded(10_000_000, 100_000, True)
    assert policy.crowded(10_000, 0, True) and not policy.crowded(10_000, 10_000, False)


def test_beside_a_computing_thread_the_switch_interval_is_longer():
    stop, seen = threading.Event(), set()

    def beside():
        while not stop.is_set():
            pass

    def body():
        for _ in range(30):
            spin(50_000)
            seen.add(round(sys.getswitchinterval(), 6))

    async def main():
        await asyncio.gather(oc.run(body, slice_s=0.005), oc.run(body, slice_s=0.005))

    thread = threading.Thread(target=beside)
    thread.start()
    try:
        asyncio.run(main())
    finally:
        stop.set()
        thread.join()
    assert policy.CROWDED_INTERVAL_S in seen


def test_a_switch_interval_that_a_coroutine_sets_is_kept():
    before = sys.getswitchinterval()

    async def main():
        await oc.run(sys.setswitchinterval, 0.02)
        return await oc.run(sys.getswitchinterval)

    try:
        assert asyncio.run(main()) == 0.02 == sys.getswitchinterval()
    finally:
        sys.setswitchinterval(before)
        scheduler._ShortInterval.users = False


def test_policy_pick():
    fresh, old = True, False
    assert policy.pick([(0, old, 0), (0, old, 0)]) == 0
    assert policy.pick([(0, old, 0), (-1, old, 0)]) == 1
    assert policy.pick([(0, old, 0), (0, fresh, 0)]) == 1
    assert policy.pick([(5, old, policy.PASSED_NS), (-1, fresh, 0)]) == 0


@pytest.mark.parametrize("bad", [0, -1, 0.00001, 11, float("nan")])
def test_policy_refuses_bad_slices(bad):
    with pytest.raises(ValueError):
        policy.slice_ns(bad)


def test_the_loop_goes_first_and_a_flood_gets_half():
    credit, cells, loop = policy.CREDIT_NS, 0, 0
    for _ in range(1000):  # a flood: the loop is never idle, and every slice is ended as early as it may be
        used = policy.hub_bound_ns(credit)
        credit = policy.credit_ns(credit, 0, used)
        ran = policy.floor_ns(credit)
        credit = policy.credit_ns(credit, ran, 0)
        cells, loop = cells + ran, loop + used
    assert 0.45 < cells / (cells + loop) <= 0.5
    assert policy.floor_ns(policy.CREDIT_NS) == policy.FLOOR_NS  # after quiet times an event is served at once


def test_in_debt_service_waits_for_cells_but_not_for_nobody():
    service, cell = (policy.HUB_PRIORITY, True, 0), (0, False, 0)
    assert policy.pick([cell, service]) == 1
    assert policy.pick([service, cell], credit=0) == 1
    assert policy.pick([service, service], credit=-1) == 0


def test_uvloop_hides_its_loop_and_is_kept_live_by_the_slice_clock():
    async def main():
        assert not runqueue.queue_of(asyncio.get_running_loop()).sees_loop
        runaway = asyncio.ensure_future(oc.run(spin, 3_000_000, slice_s=0.005))
        other = asyncio.ensure_future(oc.run(spin, 3_000_000, slice_s=0.005))
        ticks = 0
        while not (runaway.done() and other.done()):
            await asyncio.sleep(0.001)
            ticks += 1
        assert await runaway + await other > 0
        return ticks

    assert uvloop.run(main()) > 20
