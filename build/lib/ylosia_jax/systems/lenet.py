"""LeNet-5 ("Gradient-Based Learning Applied to Document Recognition", 1998), as it was and as it is drawn today."""

from ylosia_jax.models.backbones.lenet import LeNet5, OriginalLeNet5
from ylosia_jax.models.heads.classify import DenseClassifyHead
from ylosia_jax.models.heads.rbf import RbfHead
from ylosia_jax.models.network import Network
from ylosia_jax.nn.pixels import Pixels
from ylosia_jax.tasks.classify import Classify

# A white background becomes -0.1 and black ink 1.175, of images in which ink is white: about mean 0 and variance 1.
_MEAN, _STD = 0.1 / 1.275, 1 / 1.275
_PIXELS = Pixels(mean=(_MEAN, _MEAN, _MEAN), std=(_STD, _STD, _STD))


def lenet5(num_classes: int = 10, *, original: bool = False) -> tuple[Network, dict[str, Classify]]:
    """LeNet-5 for images of 32 by 32 pixels: ink 1, background 0.

    Args:
      original: of section II-B: trainable sub-sampling, a partly connected C3, and radial basis functions that compare
        with pictures of the ten digits; its loss is equation 9, with j = 0.1, which the paper does not tell. 60,000
        parameters. Else ReLUs, max pools and a last matrix; 61,706 parameters.

    Raises:
      ValueError: if the original is asked for other classes than the ten digits.
    """
    if not original:
        head = DenseClassifyHead(num_classes, "c2", pool=5, hidden=(120, 84), dropout=(0.0, 0.0, 0.0))
        network = Network(backbone=LeNet5(), neck=None, heads={"classification": head}, pixels=_PIXELS)
        return network, {"classification": Classify(num_classes)}
    if num_classes != 10:
        raise ValueError(f"num_classes is {num_classes}: the original LeNet-5 knows pictures of the ten digits alone")
    network = Network(backbone=OriginalLeNet5(), neck=None, heads={"classification": RbfHead()}, pixels=_PIXELS)
    return network, {"classification": Classify(num_classes, rubbish=-0.1)}
