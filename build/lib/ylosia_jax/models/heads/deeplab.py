"""DeepLab's heads: one level seen at several dilations at once (arXiv:1706.05587), and a decoder (arXiv:1802.02611)."""

from collections.abc import Mapping

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from ylosia_jax.nn.conv import Conv, ConvNorm
from ylosia_jax.nn.norm import NormKind
from ylosia_jax.ops.image import resize


class Wide(nn.Module):
    """A 3x3 convolution with norm and ReLU; or its depthwise separable form, 3x3 in each channel and 1x1 between them.

    Of the separable form both parts have their norm and ReLU (arXiv:1802.02611, section 3.2).
    """

    features: int
    dilation: int = 1
    separable: bool = False
    norm: NormKind = "batch"

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool) -> Float[Array, "B H W D"]:
        """Returns [B, H, W, features]."""
        last = ConvNorm(
            self.features,
            1 if self.separable else 3,
            activation="relu",
            eps=1e-5,
            dilation=1 if self.separable else self.dilation,
            norm=self.norm,
            name="mix",
        )
        if self.separable:
            channels = x.shape[-1]
            x = ConvNorm(
                channels,
                3,
                activation="relu",
                eps=1e-5,
                dilation=self.dilation,
                groups=channels,
                norm=self.norm,
                name="depthwise",
            )(x, train)
        return last(x, train)


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling (arXiv:1706.05587, section 3.3): five views of a level, side by side, mixed.

    They are a 1x1 convolution, 3x3 ones of three dilations, and the mean of the whole level. Batch norm of that mean
    sees one number an image and channel: of a batch of one image in all nothing would be left.

    Attributes:
      rates: dilations. (6, 12, 18) are the paper's for a level of stride 16; at stride 8 they are doubled, as in
        torchvision.
      width: features of each view and of their mixture.
      dropout: share of the mixture's features that are zero in a training step.
      separable: the dilated convolutions are depthwise separable.
    """

    rates: tuple[int, ...] = (12, 24, 36)
    width: int = 256
    dropout: float = 0.5
    separable: bool = False
    norm: NormKind = "batch"

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool) -> Float[Array, "B H W D"]:
        """Returns [B, H, W, width].

        Raises:
          ValueError: if it is to train with batch norm on a batch of one.
        """
        if train and self.norm == "batch" and len(x) == 1:
            raise ValueError(
                "the batch has one image, whose mean over the level batch norm makes zero: "
                'train DeepLab with a data.batch_size of at least 2, or with norm="group" or "frozen"'
            )

        def conv(name: str) -> ConvNorm:
            return ConvNorm(self.width, 1, activation="relu", eps=1e-5, norm=self.norm, name=name)

        views = [conv("point")(x, train)]
        views += [
            Wide(self.width, rate, self.separable, self.norm, name=f"rate{i}")(x, train)
            for i, rate in enumerate(self.rates, start=1)
        ]
        pooled = conv("pool")(x.mean(axis=(1, 2), keepdims=True), train)
        views.append(jnp.broadcast_to(pooled, views[0].shape))
        x = conv("project")(jnp.concatenate(views, axis=-1), train)
        return nn.Dropout(self.dropout, deterministic=not train)(x)


class DeepLabHead(nn.Module):
    """DeepLabv3's: the pyramid, a 3x3 convolution and a linear answer, on the level's own grid.

    Attributes:
      num_classes: S.
      rates, width, dropout: see `ASPP`.
      level: which it reads.
    """

    num_classes: int
    rates: tuple[int, ...] = (12, 24, 36)
    width: int = 256
    dropout: float = 0.5
    level: str = "c5"
    norm: NormKind = "batch"

    @nn.compact
    def __call__(self, features: Mapping[str, Float[Array, "B _ _ _"]], train: bool) -> Float[Array, "B h w S"]:
        """Returns [B, h, w, S]; in training it needs a key named `dropout`.

        Raises:
          ValueError: see `ASPP`.
        """
        pyramid = ASPP(self.rates, self.width, self.dropout, norm=self.norm, name="aspp")
        x = pyramid(features[self.level], train)
        x = Wide(self.width, norm=self.norm, name="hidden")(x, train)
        return Conv(self.num_classes, use_bias=True, name="out")(x)


class DeepLabPlusHead(nn.Module):
    """DeepLabv3+'s (section 3.1): the pyramid enlarged to a fine level, of which it sees a few features, and refined.

    All 3x3 convolutions are depthwise separable (section 3.1).

    Attributes:
      num_classes: S.
      rates, width, dropout: see `ASPP`.
      low_width: features of the fine level that are seen; more would outweigh the pyramid's.
      level: whose pyramid it is.
      low_level: the fine one.
    """

    num_classes: int
    rates: tuple[int, ...] = (6, 12, 18)
    width: int = 256
    dropout: float = 0.1
    low_width: int = 48
    level: str = "c5"
    low_level: str = "c2"
    norm: NormKind = "batch"

    @nn.compact
    def __call__(self, features: Mapping[str, Float[Array, "B _ _ _"]], train: bool) -> Float[Array, "B h w S"]:
        """Returns [B, h, w, S] on the fine level's grid; in training it needs a key named `dropout`.

        Raises:
          ValueError: see `ASPP`.
        """
        low = features[self.low_level]
        pyramid = ASPP(self.rates, self.width, self.dropout, separable=True, norm=self.norm, name="aspp")
        x = resize(pyramid(features[self.level], train), low.shape[1], low.shape[2])
        low = ConvNorm(self.low_width, activation="relu", eps=1e-5, norm=self.norm, name="low")(low, train)
        x = jnp.concatenate([x, low], axis=-1)
        for name in ("hidden1", "hidden2"):
            x = Wide(self.width, separable=True, norm=self.norm, name=name)(x, train)
        return Conv(self.num_classes, use_bias=True, name="out")(x)
