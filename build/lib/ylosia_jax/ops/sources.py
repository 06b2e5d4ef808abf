"""Means over a batch whose images come from several data sets.

Shape shorthand: B images, S sources, K anything. A loss that is divided by the number of objects gives a set of crowded
images the say over one whose images show a single object each. Here every set's loss is divided by its own objects, and
the sets are weighted by their images: the gradient is the mean of those that each set would make alone. Images are the
whole global batch; padding is the caller's, whose sums leave it out.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num


def sum_by_source(values: Num[Array, "B *K"], source: Bool[Array, "B S"] | None) -> Num[Array, "S *K"]:
    """Sums over the images of each source; of all images, with S = 1, where there is only one source (None)."""
    if source is None:
        return values.sum(axis=0, keepdims=True)
    picked = source.reshape(*source.shape, *[1] * (values.ndim - 1))
    # A choice and not a product: what is not finite in one set's images stays there.
    return jnp.where(picked, values[:, None], 0).sum(axis=0)


def mean_of_sources(values: Float[Array, " S"], source: Bool[Array, "B S"] | None) -> Float[Array, ""]:
    """The sources' mean, weighted by the number of images of each in the batch."""
    return values[0] if source is None else (values * source.mean(axis=0)).sum()


def mean_over_batch(
    sums: Float[Array, " B"], counts: Num[Array, " B"], source: Bool[Array, "B S"] | None
) -> Float[Array, ""]:
    """Each source's sum over its own count, of which there is at least one, and the sources' mean of that.

    Args:
      sums: each image's loss, added up over what it has.
      counts: how much that is; the sum of weights, where they are weighted.
    """
    total, count = sum_by_source(sums, source), sum_by_source(counts, source)
    return mean_of_sources(total / jnp.maximum(count, 1), source)
