"""LeNet-5's output of 1998: distances to pictures of the classes (section II-B)."""

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from ylosia_jax.models.backbones.lenet import fan_in_init, squash
from ylosia_jax.nn.conv import Conv

# The digits of the paper's figure 3, 7 by 12 cells each, as others have read them off: it is printed as a picture only.
_DIGITS = """
.#####. ...##.. .#####. ####### .#####. .#####. ..####. ####### .#####. .#####.
....... ..###.. ....... .....## ....... ....... .##.... .....## ##...## ##..###
..###.. .####.. .#####. ....##. ....... ####### ##..... .....## ##...## ##...##
.##.##. ...##.. ##...## ...##.. .##..## ##..... ##..... ....##. ##...## ##...##
##...## ...##.. #....## ..####. .##..## ##..... ######. ...##.. .#####. ##..###
##...## ...##.. ....##. .....## ###..## .####.. ###..## ...##.. ##...## .######
##...## ...##.. ..###.. .....## ##...## ..####. ##...## ..##... ##...## .....##
##...## ...##.. .##.... .....## ##...## .....## ##...## ..##... ##...## .....##
.##.##. ...##.. ##..... ##...## ##..### ##...## ###..## ..##... ##...## ....##.
..###.. .###### ####### .#####. .###### .#####. .#####. ..##... .#####. .####..
....... ....... ....... ....... .....## ....... ....... ....... ....... .......
....... ....... ....... ....... .....## ....... ....... ....... ....... .......
"""
_BLACK = np.array([[list(digit) for digit in row.split()] for row in _DIGITS.strip().splitlines()]) == "#"
# [10, 84]: 1 where a cell is black, -1 where it is white.
CODES = np.where(_BLACK.transpose(1, 0, 2).reshape(10, 84), 1.0, -1.0).astype(np.float32)


class RbfHead(nn.Module):
    """C5, F6 and the ten Euclidean radial basis functions, whose centres are small pictures of the digits.

    Attributes:
      level: that it reads, 16 maps of 5x5 cells.
    """

    level: str = "c2"

    @nn.compact
    def __call__(self, features: dict[str, Float[Array, "B 5 5 16"]], train: bool) -> Float[Array, "B 10"]:
        """Returns logits: the squared distances of F6's 84 outputs from each picture, negative (equation 7).

        Raises:
          ValueError: if the level is not of 5x5 cells.
        """
        x = features[self.level]
        if x.shape[1:3] != (5, 5):
            raise ValueError(
                f"LeNet-5's C5 reads 5x5 cells, it is given {x.shape[1:3]}: images must be of 32x32 pixels"
            )
        x = squash(Conv(120, 5, padding=0, use_bias=True, kernel_init=fan_in_init, name="c5")(x))
        x = squash(nn.Dense(84, kernel_init=fan_in_init, name="f6")(x[:, 0, 0]))
        return -jnp.square(x[:, None] - CODES).sum(axis=-1)
