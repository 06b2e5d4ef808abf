"""torchvision as a reference, with or without its compiled operators; and what comparing with it needs.

torchvision's own operators do not load beside every build of torch. Its models do not need them: here `nms` is plain
torch, and RoIAlign falls back to torchvision's own Python.
"""

import contextlib
import functools
import importlib
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the packages of requirements-parity.txt: make parity")

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "roi_align(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width, "
    "int sampling_ratio, bool aligned) -> Tensor",
    "_roi_align_backward(Tensor grad, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width, "
    "SymInt batch_size, SymInt channels, SymInt height, SymInt width, int sampling_ratio, bool aligned) -> Tensor",
    "roi_pool(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width) "
    "-> (Tensor, Tensor)",
    "_roi_pool_backward(Tensor grad, Tensor rois, Tensor argmax, float spatial_scale, SymInt pooled_height, "
    "SymInt pooled_width, SymInt batch_size, SymInt channels, SymInt height, SymInt width) -> Tensor",
    "ps_roi_align(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width, "
    "int sampling_ratio) -> (Tensor, Tensor)",
    "_ps_roi_align_backward(Tensor grad, Tensor rois, Tensor channel_mapping, float spatial_scale, "
    "SymInt pooled_height, SymInt pooled_width, int sampling_ratio, SymInt batch_size, SymInt channels, "
    "SymInt height, SymInt width) -> Tensor",
    "ps_roi_pool(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width) "
    "-> (Tensor, Tensor)",
    "_ps_roi_pool_backward(Tensor grad, Tensor rois, Tensor channel_mapping, float spatial_scale, "
    "SymInt pooled_height, SymInt pooled_width, SymInt batch_size, SymInt channels, SymInt height, SymInt width) "
    "-> Tensor",
    "deform_conv2d(Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias, SymInt stride_h, "
    "SymInt stride_w, SymInt pad_h, SymInt pad_w, SymInt dilation_h, SymInt dilation_w, SymInt groups, "
    "SymInt offset_groups, bool use_mask) -> Tensor",
    "_deform_conv2d_backward(Tensor grad, Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias, "
    "SymInt stride_h, SymInt stride_w, SymInt pad_h, SymInt pad_w, SymInt dilation_h, SymInt dilation_w, "
    "SymInt groups, SymInt offset_groups, bool use_mask) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
_kept: list[Any] = []  # a library that is collected takes its operators along


def plain_nms(boxes: Any, scores: Any, iou_threshold: float) -> Any:
    """Greedy suppression, one box after the other."""
    order = torch.sort(scores, descending=True, stable=True).indices
    boxes = boxes[order]
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    alive = torch.ones(len(boxes), dtype=torch.bool)
    for i in range(len(boxes)):
        if alive[i]:
            low, high = torch.maximum(boxes[i, :2], boxes[i:, :2]), torch.minimum(boxes[i, 2:], boxes[i:, 2:])
            shared = (high - low).clamp(min=0).prod(dim=1)
            close = shared / (area[i] + area[i:] - shared) > iou_threshold
            close[0] = False
            alive[i:] &= ~close
    return order[alive]


def quick_roi_align(
    maps: Any, rois: Any, scale: float, height: int, width: int, sampling: int, aligned: bool = False
) -> Any:
    """RoIAlign through torch's `grid_sample`: many times faster than torchvision's Python.

    Args:
      maps: [B, C, H, W].
      rois: [K, 5], the image and the box, xyxy, in pixels that are 1 / scale cells wide.
      height, width: bins down and across.
      sampling: points along each side of a bin; 0 or less for as many as it has cells, rounded up, in each direction.

    Returns:
      [K, C, height, width]. Points up to a cell outside of the map count as its edge, those beyond as zero; so does a
      region without area whose points are to be counted by its cells.
    """
    boxes = rois[:, 1:] * scale - (0.5 if aligned else 0.0)
    sides = boxes[:, 2:] - boxes[:, :2]
    sides = sides if aligned else sides.clamp(min=1)
    counts = (sides / torch.tensor([width, height])).ceil().int()
    counts = counts if sampling <= 0 else torch.full_like(counts, sampling)

    def points(axis: int, own: Any, bins: int, count: int, cells: int) -> tuple[Any, Any]:
        places = (torch.arange(bins * count, dtype=maps.dtype) + 0.5) / (bins * count)
        found = boxes[own, axis, None] + places * sides[own, axis, None]
        inside = (found >= -1) & (found <= cells)
        return found.clamp(0, cells - 1) * (2 / max(cells - 1, 1)) - 1, inside.to(maps.dtype)

    result = maps.new_zeros(len(rois), maps.shape[1], height, width)
    # One call for all regions of a map that have as many points.
    for image, across, down in {(int(roi[0]), *map(int, count)) for roi, count in zip(rois, counts, strict=True)}:
        if across * down == 0:
            continue  # no area, no points
        alike = (rois[:, 0] == image) & (counts[:, 0] == across) & (counts[:, 1] == down)
        own = alike.nonzero()[:, 0]
        columns, wide = points(0, own, width, across, maps.shape[3])
        rows, high = points(1, own, height, down, maps.shape[2])
        shape = (len(own), rows.shape[1], columns.shape[1])
        grid = torch.stack([columns[:, None].expand(shape), rows[:, :, None].expand(shape)], dim=-1)
        found = torch.nn.functional.grid_sample(
            maps[image : image + 1], grid.reshape(1, -1, shape[2], 2), padding_mode="border", align_corners=True
        )
        found = found[0].unflatten(1, shape[:2]).transpose(0, 1) * (high[:, :, None] * wide[:, None])[:, None]
        result = result.index_put((own,), torch.nn.functional.avg_pool2d(found, (down, across)).to(result.dtype))
    return result


@contextlib.contextmanager
def quick_regions() -> Iterator[None]:
    """`quick_roi_align` in the place of torchvision's Python."""
    torchvision()
    module = importlib.import_module("torchvision.ops.roi_align")
    plain = module._roi_align
    module._roi_align = quick_roi_align
    try:
        yield
    finally:
        module._roi_align = plain


@functools.cache
def torchvision() -> ModuleType:
    """The package, whose detectors run on this torch."""
    with contextlib.suppress(Exception):
        import torchvision as found

        found.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
        return found
    from torch import library as operators

    library = operators.Library("torchvision", "DEF")
    for schema in _SCHEMAS:
        with contextlib.suppress(RuntimeError):
            library.define(schema)
    library.impl("nms", plain_nms, "CPU")
    _kept.append(library)
    import torchvision as found

    def nothing() -> None:
        pass

    # By their full names: in `torchvision.ops` functions stand before the modules that they are from.
    roi_align = importlib.import_module("torchvision.ops.roi_align")
    for name in ("extension", "ops.boxes", "ops.deform_conv", "ops.ps_roi_align", "ops.ps_roi_pool", "ops.roi_pool"):
        importlib.import_module(f"torchvision.{name}")._assert_has_ops = nothing
    roi_align._assert_has_ops = nothing
    # As it is written: torch would compile it, for minutes.
    roi_align._roi_align = roi_align._roi_align.__wrapped__
    return found


@contextlib.contextmanager
def exact() -> Iterator[None]:
    """JAX multiplies in float32, and torch on one thread, whose sums are the same every time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with jax.default_matmul_precision("highest"):
            yield
    finally:
        torch.set_num_threads(threads)


def randomise(model: Any, seed: int = 0) -> Any:
    """Gives every batch norm scales, biases and statistics that are not trivial. Returns the model."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(like: Any, low: float, high: float) -> Any:
        return torch.rand(like.shape, generator=generator) * (high - low) + low

    with torch.no_grad():
        for module in model.modules():
            if getattr(module, "running_mean", None) is not None:
                module.running_mean.copy_(uniform(module.running_mean, -0.2, 0.2))
                module.running_var.copy_(uniform(module.running_var, 0.6, 1.4))
                module.weight.copy_(uniform(module.weight, 0.7, 1.3))
                module.bias.copy_(uniform(module.bias, -0.2, 0.2))
    return model


def settle(model: Any, run: Callable[[], Any], *, branch: float = 0.3) -> None:
    """Gives the norms of a deep network statistics of what they see when it is run, a little off.

    With any others activations grow from block to block, and answers of a million have no digit after the point. What
    residual blocks add is made small, as trained ones do, or each multiplies the rounding errors of those before it.

    Args:
      branch: what the last norm of a residual block's branch is multiplied by.
    """
    generator = torch.Generator().manual_seed(0)

    def adopt(norm: Any, seen: Any) -> None:
        spread, centre = torch.var_mean(seen[0], dim=(0, 2, 3))
        luck = torch.rand((2, len(centre)), generator=generator)
        norm.running_var.copy_(spread * (0.6 + 0.8 * luck[0]) + 1e-3)
        norm.running_mean.copy_(centre + (0.4 * luck[1] - 0.2) * spread.sqrt())

    with torch.no_grad():
        for block in model.modules():
            if (last := getattr(block, "bn3", getattr(block, "bn2", None))) is not None:
                last.weight.mul_(branch)
    norms = [module for module in model.modules() if getattr(module, "running_mean", None) is not None]
    hooks = [norm.register_forward_pre_hook(adopt) for norm in norms]
    with torch.no_grad():
        run()
    for hook in hooks:
        hook.remove()


def narrowed(model: Any, by: int, keep: int = 0) -> Any:
    """Divides the widths of all layers but for the image's channels and the `keep` outputs. Returns the model."""
    nn = torch.nn

    def out(width: int) -> int:
        return width if width == keep else width // by

    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.Conv2d):
                first = layer.in_channels if layer.in_channels == 3 else layer.in_channels // by
                shape = (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
                new = nn.Conv2d(first, out(layer.out_channels), *shape, bias=layer.bias is not None)
            elif isinstance(layer, nn.Linear):
                new = nn.Linear(layer.in_features // by, out(layer.out_features))
            elif isinstance(layer, nn.BatchNorm2d):
                new = nn.BatchNorm2d(layer.num_features // by)
            else:
                continue
            setattr(parent, name, new)
    return model


def numpy(tensor: Any) -> np.ndarray:
    """A tensor as an array."""
    return tensor.detach().cpu().numpy()


def state_of(model: Any) -> dict[str, np.ndarray]:
    """A model's state dict as arrays of their own: an update of the model's does not reach them."""
    state: Mapping[str, Any] = model.state_dict()
    return {name: numpy(value).copy() for name, value in state.items()}
