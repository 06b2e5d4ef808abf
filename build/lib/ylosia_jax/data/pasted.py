"""Pictures on their canvases with all their labels, half way through augmentation.

Shape shorthand: B images, N objects (padded), K classes, H W canvas.
"""

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from ylosia_jax.types import Objects, Rois


@struct.dataclass
class Pasted:
    """Pictures moved to their places on otherwise empty canvases.

    Attributes:
      image: zeros where no picture lies.
      cover: how much of each pixel is picture.
      instances: as in `Batch`.
      semantic: 1 + the class, VOID + 1 for void; 0 where no picture lies.
      regions: as in `Batch`, of the first picture on each canvas.
    """

    image: Float[Array, "B H W 3"]
    cover: Float[Array, "B H W 1"]
    objects: Objects
    known: Bool[Array, "B K"] | None
    instances: Int[Array, "B H W"] | None
    semantic: Int[Array, "B H W"] | None
    regions: Rois | None = None


def compact(pasted: Pasted, objects: Objects, rows: int) -> Pasted:
    """Brings the valid objects to the front, in order, and keeps `rows` of them."""
    order = jnp.argsort(~objects.valid, axis=1, stable=True)[:, :rows]
    kept = jax.tree.map(
        lambda x: jnp.take_along_axis(x, order.reshape(*order.shape, *[1] * (x.ndim - 2)), axis=1), objects
    )
    instances = pasted.instances
    if instances is not None:

        def renumber(instances: Array, order: Array) -> Array:
            places = jnp.zeros(1 + objects.valid.shape[1], jnp.int32).at[1 + order].set(1 + jnp.arange(rows))
            return jnp.take(places, instances)

        instances = jax.vmap(renumber)(instances, order)
    return pasted.replace(objects=kept, instances=instances)  # type: ignore[attr-defined]
