"""What will be there when `spin` has received it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from typing import Any


class Future:
    """rclpy's. Callbacks run in the thread that spins, when the result is set."""

    def __init__(self) -> None:
        self._done = self._cancelled = False
        self._result: Any = None
        self._callbacks: list[Callable[[Future], object]] = []

    def done(self) -> bool:
        return self._done or self._cancelled

    def cancelled(self) -> bool:
        return self._cancelled

    def result(self) -> Any:
        """None before it is there."""
        return self._result

    def set_result(self, result: Any) -> None:
        if not self.done():
            self._result, self._done = result, True
            self._call()

    def cancel(self) -> None:
        if not self.done():
            self._cancelled = True
            self._call()

    def __await__(self) -> Generator[Future, None, Any]:
        if not self.done():
            yield self
        return self._result

    def add_done_callback(self, callback: Callable[[Future], object]) -> None:
        self._callbacks.append(callback)
        if self.done():
            self._call()

    def _call(self) -> None:
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback(self)


def run(coroutine: Coroutine[Future, None, Any], finish: Callable[[Any], object]) -> None:
    """Go on with a coroutine up to each future that it awaits, then when that is done; `finish` gets its result."""
    try:
        awaited = coroutine.send(None)
    except StopIteration as end:
        finish(end.value)
    else:
        awaited.add_done_callback(lambda _: run(coroutine, finish))
