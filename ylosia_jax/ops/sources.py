"""Sums and means of a batch whose images come from several data sets.

Shape shorthand: B images, S sources. A loss that is divided by the number of objects gives a set of crowded images the
say over one whose images show a single object each. With these, every set's loss is divided by its own objects, and the
sets are weighted by their images: the gradient is the mean of those that each set would make alone.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def sum_by_source(values: Float[Array, "B *K"], source: Bool[Array, "B S"] | None) -> Float[Array, "S *K"]:
    """Sums over the images of each source; of all images, with S = 1, where there is only one source (None)."""
    if source is None:
        return values.sum(axis=0, keepdims=True)
    picked = source.reshape(*source.shape, *[1] * (values.ndim - 1))
    # A choice and not a product: what is not finite in one set's images stays there.
    return jnp.where(picked, values[:, None], 0).sum(axis=0)


def mean_of_sources(values: Float[Array, " S"], source: Bool[Array, "B S"] | None) -> Float[Array, ""]:
    """The sources' mean, weighted by the number of images of each in the global batch."""
    return values[0] if source is None else (values * source.mean(axis=0)).sum()
