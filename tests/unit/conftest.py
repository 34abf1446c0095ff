"""Every network test runs on both event loops, and fails on any error that nobody handled."""

import asyncio
import gc
from typing import Any, Callable, Coroutine

import pytest
import uvloop

Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs one coroutine, within 20 s."""
    factory = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}[request.param]

    def run_to_end(scenario: Coroutine[Any, Any, None]) -> None:
        unhandled: list[dict[str, Any]] = []

        async def main() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
            async with asyncio.timeout(20):
                await scenario

        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(main())
        gc.collect()
        assert not unhandled, unhandled

    return run_to_end
