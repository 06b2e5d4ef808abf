"""The head that runs a network of its own on every region, cut out of the image."""

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from ylosia_jax.nn.conv import kernel_init
from ylosia_jax.ops.crops import warp_regions
from ylosia_jax.types import CropOutputs, Rois


class Pixel(nn.Module):
    """A backbone that leaves the image as it is: its one level, c0, has stride 1."""

    @nn.compact
    def __call__(self, image: Float[Array, "B H W 3"], train: bool) -> dict[str, Array]:
        """Returns the image as c0."""
        return {"c0": image}


class CropHead(nn.Module):
    """Features of warped regions, their classes, and what was fitted to the features (R-CNN, arXiv:1311.2524, 2).

    The network learns classes by a softmax. What answers in the end, a linear support vector machine and a ridge
    regression of the box for each class, is fitted to its features when it has learned, see `tasks.rcnn`: the numbers
    stand in the collection `fitted`, which no gradient changes.

    Attributes:
      backbone: called as `(crops, train)`.
      num_classes: K.
      level: of the backbone that is pooled.
      size: of a crop, in pixels.
      context: the rim of a crop that shows what is around its region.
      dense: features of the dense layers; the last one's are what the machines see.
      dropout: share of their answers that training leaves out.
      chunk: crops that prediction cuts out and looks at together, to bound the memory.
    """

    backbone: nn.Module
    num_classes: int
    level: str = "c5"
    size: int = 224
    context: int = 16
    dense: tuple[int, ...] = (4096, 4096)
    dropout: float = 0.5
    chunk: int = 256

    def setup(self) -> None:
        """Names the layers."""
        self.fc = [nn.Dense(width, kernel_init=kernel_init) for width in self.dense]
        self.drop = nn.Dropout(self.dropout)
        self.logits = nn.Dense(self.num_classes + 1, kernel_init=kernel_init)

    @nn.compact
    def __call__(self, features: Mapping[str, Float[Array, "B H W 3"]], rois: Rois, train: bool) -> CropOutputs:
        """Returns the answers for each region; those of padding mean nothing.

        In training the backbone's norms see them too, as crops of the first valid region of their image.
        """
        image, (images, regions) = features["c0"], rois.boxes.shape[:2]
        share = max(self.chunk // images, 1)  # of each image's regions
        if train:
            first = jnp.take_along_axis(rois.boxes, rois.valid.argmax(axis=1)[:, None, None], axis=1)
            pooled, last, logits = self.see(image, jnp.where(rois.valid[..., None], rois.boxes, first), train)
        elif regions <= share:
            pooled, last, logits = self.see(image, rois.boxes, train)
        else:
            pooled, last, logits = self._in_chunks(image, rois.boxes, share)
        kernel, bias, ridge, shift, fitted = (
            self.variable("fitted", name, jnp.zeros, shape).value
            for name, shape in {
                "svm_kernel": (last.shape[-1], self.num_classes),
                "svm_bias": (self.num_classes,),
                "ridge_kernel": (pooled.shape[-1], self.num_classes * 4),
                "ridge_bias": (self.num_classes * 4,),
                "done": (),
            }.items()
        )
        deltas = (pooled @ ridge + shift).reshape(*pooled.shape[:2], self.num_classes, 4)
        return CropOutputs(
            rois=rois,
            logits=logits,
            deltas=jnp.pad(deltas, ((0, 0), (0, 0), (1, 0), (0, 0))),
            margins=last @ kernel + bias,
            fitted=fitted,
            pooled=pooled,
            features=last,
        )

    def see(
        self, image: Float[Array, "B H W 3"], boxes: Float[Array, "B R 4"], train: bool
    ) -> tuple[Float[Array, "B R _"], Float[Array, "B R _"], Float[Array, "B R K+1"]]:
        """The pooled map of each crop, channels first; the last dense layer's answer; and class logits."""
        crops = warp_regions(image, boxes, self.size, context=self.context)
        x = self.backbone(crops.reshape(-1, *crops.shape[2:]), train)[self.level]
        pooled = x = x.transpose(0, 3, 1, 2).reshape(x.shape[0], math.prod(x.shape[1:]))
        for layer in self.fc:
            x = self.drop(nn.relu(layer(x)), deterministic=not train)
        pooled, last, logits = (
            seen.astype(jnp.float32).reshape(*boxes.shape[:2], seen.shape[-1]) for seen in (pooled, x, self.logits(x))
        )
        return pooled, last, logits

    def _in_chunks(self, image: Array, boxes: Array, share: int) -> tuple[Array, Array, Array]:
        images, regions = boxes.shape[:2]
        boxes = jnp.pad(boxes, ((0, 0), (0, -regions % share), (0, 0)))
        chunks = boxes.reshape(images, -1, share, 4).swapaxes(0, 1)
        look = nn.scan(
            lambda head, carry, chunk: (carry, head.see(image, chunk, train=False)),
            variable_broadcast=["params", "batch_stats"],
            split_rngs={"params": False, "dropout": False},
        )
        _, seen = look(self, (), chunks)
        return jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(images, -1, x.shape[-1])[:, :regions], seen)
