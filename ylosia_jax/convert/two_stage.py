"""What torchvision calls the tensors of its Faster, Mask and Keypoint R-CNN."""

from ylosia_jax.convert.layout import Layout, within
from ylosia_jax.convert.resnet import RESNET, fpn

_BODY = (
    *within("backbone/", "backbone.body.", RESNET),
    *within("neck/", "backbone.fpn.", fpn(2)),
    (r"rpn/conv(\d)", r"rpn.head.conv.\1.0"),
    (r"rpn/logits", r"rpn.head.cls_logits"),
    (r"rpn/deltas", r"rpn.head.bbox_pred"),
    (r"heads_box/conv(\d)/conv", r"roi_heads.box_head.\1.0"),
    (r"heads_box/conv(\d)/norm", r"roi_heads.box_head.\1.1"),
    (r"heads_box/logits", r"roi_heads.box_predictor.cls_score"),
    (r"heads_box/deltas", r"roi_heads.box_predictor.bbox_pred"),
    (r"heads_mask/conv(\d)", r"roi_heads.mask_head.\1.0"),
    (r"heads_mask/conv(\d)/conv", r"roi_heads.mask_head.\1.0"),
    (r"heads_mask/conv(\d)/norm", r"roi_heads.mask_head.\1.1"),
    (r"heads_mask/enlarge", r"roi_heads.mask_predictor.conv5_mask"),
    (r"heads_mask/logits", r"roi_heads.mask_predictor.mask_fcn_logits"),
    *((rf"heads_keypoint/conv{i}", f"roi_heads.keypoint_head.{2 * i}") for i in range(8)),
    (r"heads_keypoint/enlarge", r"roi_heads.keypoint_predictor.kps_score_lowres"),
)

# The second version's box head is a plain sequence, whose dense layer stands after four convolutions and a flattening.
TORCHVISION_RCNN = Layout("torchvision R-CNN", (*_BODY, (r"heads_box/fc(\d)", r"roi_heads.box_head.fc\1")))
TORCHVISION_RCNN_V2 = Layout("torchvision R-CNN v2", (*_BODY, (r"heads_box/fc6", r"roi_heads.box_head.5")))
