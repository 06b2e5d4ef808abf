"""How tests compile: quickly, for most programs run a few times, or well (`conftest.py` sets the former for all)."""

from importlib.metadata import version

# The newer way to compile fusions takes three times as long. Later jaxlibs have no other, and end at an option they do
# not know.
FUSIONS = ["xla_cpu_use_fusion_emitters"] if version("jaxlib").startswith("0.10.") else []
# LLVM's optimisations take most tests longer than what they save.
QUICK = " ".join(["--xla_backend_optimization_level=0", *(f"--{name}=false" for name in FUSIONS)])
# Hundreds of steps.
OPTIMISED = {"xla_backend_optimization_level": 3, **dict.fromkeys(FUSIONS, True)}
# A few in double precision, for whose convolutions XLA's CPU backend has no library but loops of its own.
LOOPS = {"xla_backend_optimization_level": 1}
