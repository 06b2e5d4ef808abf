"""The head that runs a network of its own on every region, cut out of the image."""

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
      chunk: crops that prediction looks at together, to bound the memory.
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
        """Returns the answers for each region; those of padding mean nothing."""
        crops = warp_regions(features["c0"], rois.boxes, self.size, context=self.context)
        images, regions = crops.shape[:2]
        crops = crops.reshape(images * regions, *crops.shape[2:])
        if train or crops.shape[0] <= self.chunk:
            pooled, last, logits = self.see(crops, train)
        else:
            pooled, last, logits = self._in_chunks(crops)
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
        deltas = (pooled @ ridge + shift).reshape(images, regions, self.num_classes, 4)
        return CropOutputs(
            rois=rois,
            logits=logits.reshape(images, regions, -1),
            deltas=jnp.pad(deltas, ((0, 0), (0, 0), (1, 0), (0, 0))),
            margins=(last @ kernel + bias).reshape(images, regions, -1),
            fitted=fitted,
            pooled=pooled.reshape(images, regions, -1),
            features=last.reshape(images, regions, -1),
        )

    def see(self, crops: Float[Array, "N S S 3"], train: bool) -> tuple[Array, Array, Array]:
        """The pooled map of each crop, channels first; the last dense layer's answer; and class logits."""
        x = self.backbone(crops, train)[self.level]
        pooled = x = x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1)
        for layer in self.fc:
            x = self.drop(nn.relu(layer(x)), deterministic=not train)
        return pooled.astype(jnp.float32), x.astype(jnp.float32), self.logits(x).astype(jnp.float32)

    def _in_chunks(self, crops: Float[Array, "N S S 3"]) -> tuple[Array, Array, Array]:
        count = crops.shape[0]
        crops = jnp.pad(crops, ((0, -count % self.chunk), (0, 0), (0, 0), (0, 0)))
        chunks = crops.reshape(-1, self.chunk, *crops.shape[1:])
        look = nn.scan(
            lambda head, carry, chunk: (carry, head.see(chunk, train=False)),
            variable_broadcast=["params", "batch_stats"],
            split_rngs={"params": False, "dropout": False},
        )
        _, seen = look(self, (), chunks)
        return jax.tree.map(lambda x: x.reshape(-1, x.shape[-1])[:count], seen)
