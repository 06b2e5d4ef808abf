"""Stopping on request: clusters send SIGTERM some seconds before they take a machine away."""

import contextlib
import signal
import threading
from collections.abc import Callable, Generator
from typing import Any

import jax
from jax.experimental import multihost_utils


@contextlib.contextmanager
def stop_requests() -> Generator[Callable[[int], bool]]:
    """Listens for SIGTERM while the context lasts.

    Yields:
      Called by every host after each step with the step's number: whether to stop there. Several hosts agree on one
      step, whichever of them was told.
    """
    if jax.process_count() > 1:
        yield multihost_utils.reached_preemption_sync_point
        return
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        # Only the main thread may listen to signals; whoever trains in another one stops it in their own way.
        yield lambda step: False
        return

    def note(number: int, frame: Any) -> None:
        asked.set()

    before = signal.signal(signal.SIGTERM, note)
    try:
        yield lambda step: asked.is_set()
    finally:
        signal.signal(signal.SIGTERM, before)
