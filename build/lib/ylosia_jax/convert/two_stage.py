"""What torchvision calls the tensors of its Faster, Mask and Keypoint R-CNN."""

from ylosia_jax.convert.layout import Layout, PerClass, within
from ylosia_jax.convert.resnet import RESNET, fpn

_COMMON = (
    *within("backbone/", "backbone.body.", RESNET),
    (r"rpn/logits", r"rpn.head.cls_logits"),
    (r"rpn/deltas", r"rpn.head.bbox_pred"),
    (r"heads_box/logits", r"roi_heads.box_predictor.cls_score"),
    (r"heads_box/deltas", r"roi_heads.box_predictor.bbox_pred"),
    (r"heads_mask/enlarge", r"roi_heads.mask_predictor.conv5_mask"),
    (r"heads_mask/logits", r"roi_heads.mask_predictor.mask_fcn_logits"),
    *((rf"heads_keypoint/conv{i}", f"roi_heads.keypoint_head.{2 * i}") for i in range(8)),
    (r"heads_keypoint/enlarge", r"roi_heads.keypoint_predictor.kps_score_lowres"),
)
_PER_CLASS = (
    PerClass(r"roi_heads\.box_predictor\.cls_score\..*"),
    PerClass(r"roi_heads\.box_predictor\.bbox_pred\..*", rows=4),
    PerClass(r"roi_heads\.mask_predictor\.mask_fcn_logits\..*"),
)
_DENSE = (r"heads_box/fc(\d)", r"roi_heads.box_head.fc\1")
_NOW = (
    *_COMMON,
    *within("neck/", "backbone.fpn.", fpn(2)),
    (r"rpn/conv(\d)", r"rpn.head.conv.\1.0"),
    (r"heads_mask/conv(\d)", r"roi_heads.mask_head.\1.0"),
)

# As torchvision's models name their tensors now.
RCNN = Layout("rcnn_fpn", (*_NOW, _DENSE), per_class=_PER_CLASS)
# The second version's box head is a plain sequence, whose dense layer stands after four convolutions and a flattening.
RCNN_V2 = Layout(
    "rcnn_fpn_v2",
    (
        *_NOW,
        (r"heads_(box|mask)/conv(\d)/conv", r"roi_heads.\1_head.\2.0"),
        (r"heads_(box|mask)/conv(\d)/norm", r"roi_heads.\1_head.\2.1"),
        (r"heads_box/fc6", r"roi_heads.box_head.5"),
    ),
    per_class=_PER_CLASS,
)
# As the files of 2019 name them, that torchvision publishes to this day for the first version.
RCNN_2019 = Layout(
    "rcnn_fpn_2019",
    (
        *_COMMON,
        *((rf"neck/lateral_c{i + 2}", f"backbone.fpn.inner_blocks.{i}") for i in range(4)),
        *((rf"neck/out_c{i + 2}", f"backbone.fpn.layer_blocks.{i}") for i in range(4)),
        (r"rpn/conv0", r"rpn.head.conv"),
        *((rf"heads_mask/conv{i}", f"roi_heads.mask_head.mask_fcn{i + 1}") for i in range(4)),
        _DENSE,
    ),
    per_class=_PER_CLASS,
)
