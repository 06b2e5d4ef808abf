import collections
import gc
import os
import sys
import tempfile
from pathlib import Path

import pytest

# LLVM's optimisations take most tests longer than what they save: programs here are compiled to run a few times.
QUICK = "--xla_backend_optimization_level=0"
os.environ["XLA_FLAGS"] = f"{QUICK} {os.environ.get('XLA_FLAGS', '')}"

# Commands that tests start would compile every module of every library anew each time.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

SHARED = Path(__file__).parents[2] / "shared"


def pytest_configure(config: pytest.Config) -> None:
    """Tests, and the commands they start, compile the same programs many times: all workers share a cache of them."""
    if not hasattr(config, "workerinput"):
        cache = tempfile.TemporaryDirectory(prefix="ylosia-compiled-")
        config.add_cleanup(cache.cleanup)
        os.environ["JAX_COMPILATION_CACHE_DIR"] = cache.name
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "1"


def pytest_collection_finish() -> None:
    """Tracing makes millions of small objects, hardly any of them garbage: a tenth of its time went into looking."""
    gc.freeze()
    gc.set_threshold(100_000, 20, 50)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with the most slow tests first, so that no worker is left with a long one when the others have finished."""
    slow = collections.Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture
def shared() -> Path:
    """The folder of small real data sets beside the checkout; tests that need it are skipped without it."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the real data sets in {SHARED}, which are not part of the repository")
    return SHARED
