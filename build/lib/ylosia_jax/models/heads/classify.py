"""Heads that say what an image as a whole shows."""

from flax import linen as nn
from jaxtyping import Array, Float

from ylosia_jax.nn.conv import ConvNorm
from ylosia_jax.nn.conv import kernel_init as default_init
from ylosia_jax.nn.resample import adaptive_average_pool


def _dense(name: str, x: Array, features: int, std: float | None) -> Array:
    init = default_init if std is None else nn.initializers.normal(std)
    return nn.Dense(features, kernel_init=init, name=name)(x)


def _flat(x: Array) -> Array:
    # Channels first, so that the matrices of networks of that order fit as they are.
    return x.transpose(0, 3, 1, 2).reshape(len(x), -1)


class ClassifyHead(nn.Module):
    """The mean of a level's cells, and one matrix.

    Attributes:
      level: that it reads.
      dropout: share of the means that training drops.
      std: of the normal distribution that the matrix is drawn from; None for U(-1/sqrt(n), 1/sqrt(n)), n its inputs.
    """

    num_classes: int
    level: str = "c5"
    dropout: float = 0.0
    std: float | None = None

    @nn.compact
    def __call__(self, features: dict[str, Float[Array, "B _ _ _"]], train: bool) -> Float[Array, "B K"]:
        """Returns class logits."""
        x = features[self.level].mean(axis=(1, 2))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return _dense("fc", x, self.num_classes, self.std)


class DenseClassifyHead(nn.Module):
    """A level's cells, pooled to a grid of one size, and matrices `fc1`, `fc2`, … with ReLUs between them.

    Attributes:
      level: that it reads.
      pool: side of the grid in cells, see `resample.adaptive_average_pool`.
      hidden: outputs of each matrix but the last.
      dropout: share of each matrix's inputs that training drops.
      std: as in `ClassifyHead`.
    """

    num_classes: int
    level: str = "c5"
    pool: int = 7
    hidden: tuple[int, ...] = (4096, 4096)
    dropout: tuple[float, ...] = (0.0, 0.5, 0.5)
    std: float | None = None

    @nn.compact
    def __call__(self, features: dict[str, Float[Array, "B _ _ _"]], train: bool) -> Float[Array, "B K"]:
        """Returns class logits.

        Raises:
          ValueError: if `dropout` has not a number for each matrix.
        """
        widths = (*self.hidden, self.num_classes)
        if len(self.dropout) != len(widths):
            raise ValueError(f"dropout is {self.dropout}: give {len(widths)} numbers, one a matrix")
        x = _flat(adaptive_average_pool(features[self.level], self.pool, self.pool))
        for i, (width, rate) in enumerate(zip(widths, self.dropout, strict=True), start=1):
            x = nn.Dropout(rate, deterministic=not train)(x if i == 1 else nn.relu(x))
            x = _dense(f"fc{i}", x, width, self.std)
        return x


class AuxiliaryClassifyHead(nn.Module):
    """A small classifier in the middle of GoogLeNet, for the gradients that it sends there (arXiv:1409.4842, 5).

    Pooled to 4x4 cells whatever the image's size, as torchvision does; the paper's 5x5 pools of stride 3 give 4x4 at
    224 pixels alone.

    Attributes:
      level: that it reads.
      features: of its 1x1 convolution.
      hidden: outputs of its first matrix.
      dropout: share of them that training drops.
    """

    num_classes: int
    level: str
    features: int = 128
    hidden: int = 1024
    dropout: float = 0.7

    @nn.compact
    def __call__(self, features: dict[str, Float[Array, "B _ _ _"]], train: bool) -> Float[Array, "B K"]:
        """Returns class logits."""
        x = adaptive_average_pool(features[self.level], 4, 4)
        init = nn.initializers.normal(0.01)
        x = ConvNorm(self.features, activation="relu", eps=1e-3, kernel_init=init, name="conv")(x, train)
        x = nn.relu(_dense("fc1", _flat(x), self.hidden, 0.01))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return _dense("fc2", x, self.num_classes, 0.01)
