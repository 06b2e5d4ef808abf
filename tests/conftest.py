import os
from pathlib import Path

import pytest

# LLVM's optimisations take most tests longer than what they save: programs here are compiled to run a few times.
QUICK = "--xla_backend_optimization_level=0"
os.environ["XLA_FLAGS"] = f"{QUICK} {os.environ.get('XLA_FLAGS', '')}"

SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture
def shared() -> Path:
    """The folder of small real data sets beside the checkout; tests that need it are skipped without it."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the real data sets in {SHARED}, which are not part of the repository")
    return SHARED
