"""The head of a fully convolutional network (FCN, arXiv:1411.4038), as torchvision has it on dilated ResNets."""

from collections.abc import Mapping

from flax import linen as nn
from jaxtyping import Array, Float

from ylosia_jax.nn.conv import Conv, ConvNorm
from ylosia_jax.nn.norm import NormKind


class FCNHead(nn.Module):
    """Logits of every semantic class at each cell of one level: a 3x3 convolution and a linear answer.

    The paper adds up answers of three levels; a dilated backbone keeps its last level fine instead. On an earlier level
    it is the auxiliary head of FCN and DeepLabv3 (PSPNet, arXiv:1612.01105, section 4): trained beside the other, and
    left out of prediction.

    Attributes:
      num_classes: S.
      level: which it reads.
      shrink: how many times fewer features its 3x3 convolution has than the level.
      dropout: share of those features that are zero in a training step.
    """

    num_classes: int
    level: str = "c5"
    shrink: int = 4
    dropout: float = 0.1
    norm: NormKind = "batch"

    @nn.compact
    def __call__(self, features: Mapping[str, Float[Array, "B _ _ _"]], train: bool) -> Float[Array, "B h w S"]:
        """Returns [B, h, w, S] on the level's grid; in training it needs a key named `dropout`."""
        x = features[self.level]
        hidden = ConvNorm(x.shape[-1] // self.shrink, 3, activation="relu", eps=1e-5, norm=self.norm, name="hidden")
        x = nn.Dropout(self.dropout, deterministic=not train)(hidden(x, train))
        return Conv(self.num_classes, use_bias=True, name="out")(x)
