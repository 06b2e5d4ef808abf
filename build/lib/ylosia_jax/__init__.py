"""Ylosia: one network, one pass, every answer about the objects in an image.

import ylosia_jax as yl

model = yl.load("runs/demo")
result = model("image.jpg")
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ylosia_jax.predict import Model, Result, load

__version__ = "0.1.0"
__all__ = ["Model", "Result", "load"]


def __getattr__(name: str) -> Any:
    # On first use: `ylosia --help` and the data tools shall not wait for JAX.
    if name in __all__:
        from ylosia_jax import predict

        return getattr(predict, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
