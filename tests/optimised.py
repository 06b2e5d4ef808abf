"""How to compile what costs more to run than to compile: `conftest.py` turns LLVM's passes off."""

# Hundreds of steps.
OPTIMISED = {"xla_backend_optimization_level": 3}
# A few in double precision, for whose convolutions XLA's CPU backend has no library but loops of its own.
LOOPS = {"xla_backend_optimization_level": 1}
