"""Waiting for something to become true, bounded in time."""
import os
import time

# Processors that are emulated take many times as long, and beside other tests longer still.
PATIENCE = 4 if os.environ.get("TAILRACE_ROOM") == "vm" else 1
# To look is expensive there, for it mostly starts a program, and under time travel nothing else takes time at all.
LEAST_INTERVAL = 0.25 if os.environ.get("TAILRACE_ROOM") in ("uml", "vm") else 0


class NotInTime(AssertionError):
    pass


def wait_for(condition, timeout: float, what: str, interval: float = 0.05):
    """Calls condition until it returns something true and returns that. Says what it waited for when time is over."""
    timeout *= PATIENCE
    deadline = time.monotonic() + timeout
    last_error = None
    while True:
        try:
            value = condition()
            if value:
                return value
            last_error = None
        except Exception as error: # the thing we wait for may not even be there yet
            last_error = error
        if time.monotonic() >= deadline:
            because = f" ({type(last_error).__name__}: {last_error})" if last_error else ""
            raise NotInTime(f"within {timeout:g} s: {what}{because}") from last_error
        time.sleep(max(interval, LEAST_INTERVAL))
