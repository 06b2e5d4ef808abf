"""How to compile what a test runs hundreds of times, or in double precision: `conftest.py` turns LLVM's passes off."""

OPTIMISED = {"xla_backend_optimization_level": 3}
