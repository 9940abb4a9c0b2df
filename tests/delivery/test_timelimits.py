from __future__ import annotations

import asyncio

import pytest

from delivery.timelimits import TimeLimits


def test_what_ends_in_time_goes_on():
    async def scenario():
        limits = TimeLimits()
        for _ in range(3):
            with limits.within(5):
                await asyncio.sleep(0)
        limits.close()
        await asyncio.sleep(0)
        return "through"

    assert asyncio.run(scenario()) == "through"


def test_what_takes_longer_is_interrupted_and_the_task_goes_on():
    async def scenario():
        limits = TimeLimits()
        with pytest.raises(TimeoutError), limits.within(0.02):
            await asyncio.sleep(5)
        with limits.within(5):
            await asyncio.sleep(0.001)
        limits.close()
        return asyncio.current_task().cancelling()

    assert asyncio.run(scenario()) == 0


def test_a_timer_that_rings_early_is_set_for_what_is_under_way():
    async def scenario():
        limits = TimeLimits()
        with limits.within(0.02):
            pass
        with limits.within(0.06):
            await asyncio.sleep(0.04)  # past the first ring
        with pytest.raises(TimeoutError), limits.within(0.06):
            await asyncio.sleep(5)
        limits.close()

    asyncio.run(scenario())


def test_a_shorter_limit_does_not_wait_for_the_timer_of_a_longer_one():
    async def scenario():
        limits = TimeLimits()
        with limits.within(30):
            pass
        with pytest.raises(TimeoutError), limits.within(0.02):
            await asyncio.sleep(5)
        limits.close()

    asyncio.run(asyncio.wait_for(scenario(), 3))


def test_nothing_is_interrupted_between_two_limits():
    async def scenario():
        limits = TimeLimits()
        with limits.within(0.01):
            pass
        await asyncio.sleep(0.03)
        with limits.within(5):
            await asyncio.sleep(0)
        limits.close()
        return asyncio.current_task().cancelling()

    assert asyncio.run(scenario()) == 0


def test_who_cancels_the_task_comes_before_the_limit():
    async def limited():
        limits = TimeLimits()
        try:
            with limits.within(0.02):
                await asyncio.sleep(5)
        finally:
            limits.close()

    async def scenario():
        task = asyncio.create_task(limited())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())


def test_an_outer_timeout_stays_a_timeout_of_its_own():
    async def limited_twice():
        limits = TimeLimits()
        try:
            async with asyncio.timeout(0.02):
                with limits.within(5):
                    await asyncio.sleep(5)
        finally:
            limits.close()

    async def scenario():
        with pytest.raises(TimeoutError):
            await limited_twice()
        return asyncio.current_task().cancelling()

    assert asyncio.run(scenario()) == 0


def test_other_errors_pass_through():
    async def scenario():
        limits = TimeLimits()
        with pytest.raises(ValueError, match="mine"), limits.within(5):
            raise ValueError("mine")
        limits.close()

    asyncio.run(scenario())
