"""What torchvision calls the parts of FCN and DeepLabv3 on ResNets (`systems.segmentation`).

It has no DeepLabv3+.
"""

from ylosia_jax.convert.layout import Layout, within
from ylosia_jax.convert.resnet import RESNET

_FCN_HEAD = ((r"hidden/conv", "0"), (r"hidden/norm", "1"), (r"out", "4"))
_DEEPLAB_HEAD = (
    (r"aspp/point/conv", "0.convs.0.0"),
    (r"aspp/point/norm", "0.convs.0.1"),
    (r"aspp/rate(\d)/mix/conv", r"0.convs.\1.0"),
    (r"aspp/rate(\d)/mix/norm", r"0.convs.\1.1"),
    (r"aspp/pool/conv", "0.convs.4.1"),
    (r"aspp/pool/norm", "0.convs.4.2"),
    (r"aspp/project/conv", "0.project.0"),
    (r"aspp/project/norm", "0.project.1"),
    (r"hidden/mix/conv", "1"),
    (r"hidden/mix/norm", "2"),
    (r"out", "4"),
)
_AROUND = (*within("backbone/", "backbone.", RESNET), *within("heads_auxiliary/", "aux_classifier.", _FCN_HEAD))

FCN = Layout("fcn", (*_AROUND, *within("heads_semantic/", "classifier.", _FCN_HEAD)))
DEEPLABV3 = Layout("deeplabv3", (*_AROUND, *within("heads_semantic/", "classifier.", _DEEPLAB_HEAD)))
