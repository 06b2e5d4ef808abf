"""What torchvision calls the parts of its classifiers; and what the published ResNets for CIFAR-10 do.

A classifier's head stands under `heads_classification/`. R-CNN and Fast R-CNN begin with all of a classifier but its
last layer: what they share with it is named, too.
"""

from ylosia_jax.convert.layout import Layout, within
from ylosia_jax.convert.resnet import RESNET
from ylosia_jax.convert.vgg import vgg

_HEAD = "heads_classification/"

Rules = tuple[tuple[str, str], ...]


def _body(rules: Rules) -> Rules:
    """Of a classifier's body, which in R-CNN is a part of the head."""
    return (*within("backbone/", "", rules), *within("heads_box/backbone/", "", rules))


def _dense(first: int, second: int, last: int) -> Rules:
    """Of three dense layers, by their places in `classifier`. R-CNN and Fast R-CNN take the first two of them."""
    ours = {
        first: (f"{_HEAD}fc1", "heads_box/fc_0", "heads_box/fc6"),
        second: (f"{_HEAD}fc2", "heads_box/fc_1", "heads_box/fc7"),
        last: (f"{_HEAD}fc3", "heads_box/logits"),
    }
    return tuple((name, f"classifier.{place}") for place, names in ours.items() for name in names)


_ALEXNET = tuple((f"conv{i}", f"features.{place}") for i, place in enumerate((0, 3, 6, 8, 10), start=1))
ALEXNET = Layout("alexnet", (*_body(_ALEXNET), *_dense(1, 4, 6)))
VGG16 = Layout("vgg16", (*_body(vgg()), *_dense(0, 3, 6)))
VGG16_BN = Layout("vgg16_bn", (*_body(vgg(batch_norm=True)), *_dense(0, 3, 6)))
RESNET_CLASSIFIER = Layout("resnet_classifier", (*_body(RESNET), (f"{_HEAD}fc", "fc")))

# Without the prefix `module.` of a network that was saved from several devices, which reading takes off.
RESNET_CIFAR = Layout("resnet_cifar", (*within("backbone/", "", RESNET), (f"{_HEAD}fc", "linear")))


def googlenet() -> Layout:
    """Of GoogLeNet, auxiliary heads included."""
    places = {
        "conv1": "branch1",
        "reduce3": "branch2.0",
        "conv3": "branch2.1",
        "reduce5": "branch3.0",
        "conv5": "branch3.1",
        "project": "branch4.1",
    }
    parts = (("conv", "conv"), ("norm", "bn"))
    return Layout(
        "googlenet",
        (
            *((rf"backbone/conv(\d)/{ours}", rf"conv\1.{theirs}") for ours, theirs in parts),
            *(
                (rf"backbone/(inception\d.)/{branch}/{ours}", rf"\1.{place}.{theirs}")
                for branch, place in places.items()
                for ours, theirs in parts
            ),
            (f"{_HEAD}fc", "fc"),
            *((rf"heads_(aux\d)/conv/{ours}", rf"\1.conv.{theirs}") for ours, theirs in parts),
            (r"heads_(aux\d)/fc(\d)", r"\1.fc\2"),
        ),
    )


def densenet(*, dotted: bool = False) -> Layout:
    """Of DenseNets.

    Args:
      dotted: in the files that torchvision publishes, a layer's parts are called `norm.1`, in its models `norm1`.
    """
    dot = "." if dotted else ""
    return Layout(
        "densenet_published" if dotted else "densenet",
        (
            ("backbone/stem", "features.conv0"),
            ("backbone/stem_norm", "features.norm0"),
            ("backbone/norm", "features.norm5"),
            (r"backbone/block(\d)_(\d+)/(norm|conv)(\d)", rf"features.denseblock\1.denselayer\2.\3{dot}\4"),
            (r"backbone/transition(\d)", r"features.transition\1.conv"),
            (r"backbone/transition(\d)_norm", r"features.transition\1.norm"),
            (f"{_HEAD}fc", "classifier"),
        ),
    )


def mobilenet_v2(blocks: int = 17) -> Layout:
    """Of MobileNetV2.

    Args:
      blocks: inverted residuals, of which the first does not expand.
    """
    parts = (("conv", "0"), ("norm", "1"))
    first = (("depthwise/conv", "0.0"), ("depthwise/norm", "0.1"), ("project/conv", "1"), ("project/norm", "2"))
    return Layout(
        "mobilenet_v2",
        (
            *((f"backbone/stem/{ours}", f"features.0.{theirs}") for ours, theirs in parts),
            *((f"backbone/last/{ours}", f"features.{blocks + 1}.{theirs}") for ours, theirs in parts),
            *((f"backbone/block1/{ours}", f"features.1.conv.{theirs}") for ours, theirs in first),
            *((rf"backbone/block(\d+)/expand/{ours}", rf"features.\1.conv.0.{theirs}") for ours, theirs in parts),
            *((rf"backbone/block(\d+)/depthwise/{ours}", rf"features.\1.conv.1.{theirs}") for ours, theirs in parts),
            (r"backbone/block(\d+)/project/conv", r"features.\1.conv.2"),
            (r"backbone/block(\d+)/project/norm", r"features.\1.conv.3"),
            (f"{_HEAD}fc", "classifier.1"),
        ),
    )


CLASSIFIERS = (
    ALEXNET,
    VGG16,
    VGG16_BN,
    RESNET_CLASSIFIER,
    RESNET_CIFAR,
    googlenet(),
    densenet(),
    densenet(dotted=True),
    mobilenet_v2(),
)
