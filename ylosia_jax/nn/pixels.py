"""What a network wants its pixels to be."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float


@dataclasses.dataclass(frozen=True)
class Pixels:
    """How an RGB image with values in [0, 1] is scaled before the first layer; the defaults leave it alone.

    Padding of the canvas is grey before, and scaled like the picture.

    Attributes:
      mean: taken off each of R, G and B.
      std: what is left is divided by.
      bgr: the first layer's channels are blue, green, red: the order of what Caffe and OpenCV trained.
    """

    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    bgr: bool = False

    def __call__(self, image: Float[Array, "B H W 3"]) -> Float[Array, "B H W 3"]:
        """Scales an image."""
        if self == Pixels():
            return image
        image = (image - jnp.array(self.mean, image.dtype)) / jnp.array(self.std, image.dtype)
        return image[..., ::-1] if self.bgr else image


# The statistics of ImageNet, by which torchvision's networks are fed.
CENTRED = Pixels(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
IMAGENET = Pixels(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
# Values in [0, 255], blue first: Megvii's and other OpenCV-fed detectors.
BGR_255 = Pixels(std=(1 / 255, 1 / 255, 1 / 255), bgr=True)
