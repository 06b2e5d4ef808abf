"""Objects of one picture laid over another (Ghiasi et al., arXiv:2012.07177).

Shape shorthand: B images, N objects (padded), J points of a pose, H W canvas.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ylosia_jax.data.pasted import Pasted, compact
from ylosia_jax.ops import boxes as box_ops
from ylosia_jax.types import Objects


def copy_paste(
    pasted: Pasted,
    chosen: Bool[Array, " B"],
    picks: Bool[Array, "B N"],
    *,
    min_visible: float,
    min_side: float,
) -> Pasted:
    """Lays objects of each next image of the batch over the chosen ones.

    Only objects whose masks are known are pasted, as far as they are seen where they come from, no crowds, and no more
    than there are rows for. What they cover changes as if it had been so from the start: masks lose what is hidden,
    boxes shrink to what is left, objects that are hidden too far leave, points that are hidden are labelled so. Of an
    object without a known mask nobody knows what is left: where too much of its box is covered it becomes a crowd,
    neither a target nor background. Padding rows stay padding.

    Args:
      pasted: with maps.
      chosen: images that get something pasted.
      picks: rows of the next image's objects that are pasted.
      min_visible: an object stays if at least this share of its pixels remains in view.
      min_side: and if both sides of its box are at least this long, in pixels.

    Raises:
      ValueError: if there are no masks.
    """
    if pasted.instances is None:
        raise ValueError("copy_paste cuts objects out by their masks: it needs a map of instances")
    donor = jax.tree.map(lambda x: jnp.roll(x, -1, axis=0), pasted)
    rows = picks.shape[1]

    def uncover(objects: Objects, instances: Array, over: Array, partly: bool) -> Objects:
        run = functools.partial(_uncover, min_visible=min_visible, min_side=min_side, partly=partly)
        return jax.vmap(run)(objects, instances, over)

    # Pasted is what is seen where it comes from: an object may lie under others there, down to its last pixel.
    given: Objects = uncover(donor.objects, donor.instances, jnp.zeros_like(donor.instances, dtype=bool), partly=True)
    assert given.masked is not None
    taken = picks & chosen[:, None] & given.valid & given.masked & ~given.crowd
    taken &= jnp.cumsum(taken, axis=1) <= rows - pasted.objects.valid.sum(axis=1, keepdims=True)
    over = _any_of(donor.instances, taken)
    instances = jnp.where(over, donor.instances + rows, pasted.instances)
    kept = uncover(pasted.objects, pasted.instances, over, partly=False)
    gone = pasted.objects.valid & ~kept.valid
    instances = jnp.where(_any_of(pasted.instances, gone) & ~over, 0, instances)
    semantic = pasted.semantic
    if semantic is not None:
        semantic = jnp.where(over, donor.semantic, semantic)
    both = jax.tree.map(
        lambda mine, other: jnp.concatenate([mine, other * taken.reshape(*taken.shape, *[1] * (other.ndim - 2))], 1),
        kept,
        given,
    )
    laid = pasted.replace(  # type: ignore[attr-defined]
        image=jnp.where(over[..., None], donor.image, pasted.image),
        cover=jnp.where(over[..., None], donor.cover, pasted.cover),
        instances=instances,
        semantic=semantic,
    )
    return compact(laid, both, rows)


def _any_of(instances: Int[Array, "B H W"], rows: Bool[Array, "B N"]) -> Bool[Array, "B H W"]:
    """Where one of some objects is seen."""
    numbers = 1 + jnp.arange(rows.shape[1])[:, None, None]
    # Compared and reduced in one fused pass: a table looked up at every pixel would be a gather.
    return ((instances[:, None] == numbers) & rows[:, :, None, None]).any(axis=1)


def _uncover(
    objects: Objects,
    instances: Int[Array, "H W"],
    over: Bool[Array, "H W"],
    *,
    min_visible: float,
    min_side: float,
    partly: bool,
) -> Objects:
    """What is left of one image's objects under what is laid over them.

    Args:
      partly: the objects may be hidden by one another before: boxes shrink to what is seen in any case.
    """
    assert objects.masked is not None
    height, width = instances.shape
    count = objects.labels.shape[0]
    was = instances == 1 + jnp.arange(count)[:, None, None]
    still = was & ~over
    before, after = was.sum(axis=(1, 2)), still.sum(axis=(1, 2))
    changed = objects.masked & ((after < before) | partly)
    # The share of each box that is covered, as two products.
    y, x = jnp.arange(height) + 0.5, jnp.arange(width) + 0.5
    rows = (y >= objects.boxes[:, 1:2]) & (y < objects.boxes[:, 3:])
    columns = (x >= objects.boxes[:, :1]) & (x < objects.boxes[:, 2:3])
    covered = jnp.einsum("nh,hw,nw->n", rows * 1.0, over * 1.0, columns * 1.0)
    unsure = ~objects.masked & (covered > (1 - min_visible) * box_ops.area(objects.boxes))

    def ends(seen: Bool[Array, "N L"], size: int) -> tuple[Array, Array]:
        return jnp.argmax(seen, axis=1), size - jnp.argmax(seen[:, ::-1], axis=1)

    (x0, x1), (y0, y1) = ends(still.any(axis=1), width), ends(still.any(axis=2), height)
    left = jnp.stack([x0, y0, x1, y1], axis=-1).astype(objects.boxes.dtype)
    # Masks are made of whole pixels, boxes are not: a side that did not move keeps its fraction.
    boxes = jnp.where(changed[:, None] & (jnp.abs(left - objects.boxes) > 1), left, objects.boxes)
    # A mask may reach a little beyond its box.
    boxes = jnp.concatenate(
        [jnp.maximum(boxes[:, :2], objects.boxes[:, :2]), jnp.minimum(boxes[:, 2:], objects.boxes[:, 2:])], axis=-1
    )
    sides = boxes[:, 2:] - boxes[:, :2]
    visible = (
        (after >= jnp.maximum(min_visible * before, 1)) & (sides.min(axis=-1) >= min_side) & (box_ops.area(boxes) > 0)
    )
    valid = objects.valid & (visible | ~changed)
    keypoints = objects.keypoints
    if keypoints is not None:
        keypoints = _hide(keypoints, over) * valid[:, None, None]
    return Objects(
        boxes=boxes * valid[:, None],
        labels=objects.labels * valid,
        valid=valid,
        crowd=(objects.crowd | unsure) & valid,
        masked=objects.masked & valid,
        keypoints=keypoints,
    )


def _hide(keypoints: Float[Array, "N J 3"], over: Bool[Array, "H W"]) -> Float[Array, "N J 3"]:
    """Marks the points that something lies over as hidden."""
    x, y = (keypoints[..., i].astype(jnp.int32) for i in range(2))
    v = keypoints[..., 2]
    return keypoints.at[..., 2].set(jnp.where(over[y, x], jnp.minimum(v, 1), v))
