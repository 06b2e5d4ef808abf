"""Convolution whose forms on XLA's CPU backend, gradients included, are chosen for speed.

Shape shorthand: B images, H W C axes of the input, P Q O of the output.
"""

import functools
import itertools
import os
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

_LAYOUT = ("NHWC", "HWIO", "NHWC")
_Pair = tuple[int, int]

# Up to 0.10 jax runs most CPU convolutions on one thread each: bands of rows or channels, a few at most to spare the
# compiler, keep the cores busy. Later versions thread the convolution itself.
_BANDS = min(os.cpu_count() or 1, 8) if jax.__version_info__ < (0, 11) else 1
_BAND_ROWS = 4  # a band of fewer rows costs more in copies than another core gains
_BAND_FEATURES = 16  # so it is with the output channels of a kernel's gradient
_WIDE = 128  # channels in and out from which on products of matrices make a kernel's gradient sooner


def conv_general_dilated(
    lhs: Float[Array, "..."],
    rhs: Float[Array, "..."],
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    batch_group_count: int = 1,
    precision: Any = None,
    preferred_element_type: Any = None,
) -> Float[Array, "..."]:
    """`jax.lax.conv_general_dilated`, also for `flax.linen.Conv(conv_general_dilated=...)`, faster on CPU.

    On the CPU platform a 1x1 convolution becomes a matrix product, and the gradient by the input of a strided one
    becomes a plain convolution for each remainder of the stride, where XLA's own convolves an input filled up with
    zeros. A depthwise one becomes a sum of shifted maps, about fifteen times faster than XLA's own. The gradient by a
    kernel of 128 channels and more becomes a product for each of its rows, and a convolution of a map of fewer cells
    than the kernel has one product of all shifted maps (`experiments/speed` has the times). The platform is that of
    lowering, so a program compiled on a CPU for another accelerator is lax's own there.

    Fast forms cover two spatial dimensions in NHWC with HWIO kernels, no dilation but in depthwise ones, and no groups
    but those of one channel in and out; everything else is lax's on every platform. Arguments, shapes and errors are
    those of `jax.lax.conv_general_dilated`. Reverse mode only: forward-mode derivatives of the covered cases raise
    `TypeError`.
    """
    unit = (None, (1, 1), [1, 1])
    depthwise = rhs.ndim == 4 and 1 < feature_group_count == lhs.shape[-1] == rhs.shape[-1]
    if (
        lhs.ndim != 4
        or rhs.ndim != 4
        or lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)
        != lax.conv_dimension_numbers(lhs.shape, rhs.shape, _LAYOUT)
        or lhs.shape[3] != rhs.shape[2] * feature_group_count
        or lhs.dtype != rhs.dtype
        or not jnp.issubdtype(lhs.dtype, jnp.floating)
        or lhs_dilation not in unit
        or (rhs_dilation not in unit and not depthwise)
        or (feature_group_count != 1 and not depthwise)
        or batch_group_count != 1
        or preferred_element_type is not None
    ):
        return lax.conv_general_dilated(
            lhs,
            rhs,
            window_strides,
            padding,
            lhs_dilation,
            rhs_dilation,
            dimension_numbers,
            feature_group_count,
            batch_group_count,
            precision,
            preferred_element_type,
        )
    dilation = (1, 1) if rhs_dilation is None else (int(rhs_dilation[0]), int(rhs_dilation[1]))
    if isinstance(padding, str):
        reach = [(size - 1) * step + 1 for size, step in zip(rhs.shape[:2], dilation, strict=True)]
        padding = lax.padtype_to_pads(lhs.shape[1:3], reach, window_strides, padding)
    rows, columns = padding
    pads = ((int(rows[0]), int(rows[1])), (int(columns[0]), int(columns[1])))
    strides = (int(window_strides[0]), int(window_strides[1]))
    if depthwise:
        return _depthwise_once(lhs, rhs, strides, pads, dilation, precision)
    return _conv_once(lhs, rhs, strides, pads, precision)


def conv_transpose(
    x: Float[Array, "B H W C"], kernel: Float[Array, "k k C F"], stride: int, padding: int = 0
) -> Float[Array, "B _ _ F"]:
    """The gradient of a strided convolution by its input: each cell, times the kernel, is spread over a patch.

    arXiv:1603.07285, chapter 4. As in PyTorch's `ConvTranspose2d`, the kernel is not flipped: what cell (i, j) gives
    lies at rows from stride * i - padding on, and at columns from stride * j - padding on.

    Pixels of the same place within a stride see the same part of the kernel, so that an ordinary convolution gives them
    all, one stack of features each. Of a map that is filled up with zeros instead most products would be with them, and
    XLA's CPU backend takes some forty times as long there and back with a wide kernel (`experiments/speed`).

    Args:
      stride: pixels of the result from one cell's patch to the next.
      padding: pixels that are cut off every side of the result; nothing is added to the map.

    Returns:
      [B, (H - 1) * stride + k - 2 * padding, (W - 1) * stride + k - 2 * padding, F].
    """
    batch, height, width, channels = x.shape
    size, features = kernel.shape[0], kernel.shape[3]
    taps = -(-size // stride)
    rest = taps * stride - size
    kernel = jnp.pad(kernel, ((0, rest), (0, rest), (0, 0), (0, 0)))
    kernel = kernel.reshape(taps, stride, taps, stride, channels, features)[::-1, :, ::-1]
    kernel = kernel.transpose(0, 2, 4, 1, 3, 5).reshape(taps, taps, channels, -1)
    reach = (taps - 1, taps - 1)
    y = conv_general_dilated(x, kernel, (1, 1), (reach, reach), dimension_numbers=("NHWC", "HWIO", "NHWC"))
    y = y.reshape(*y.shape[:3], stride, stride, features).transpose(0, 1, 3, 2, 4, 5)
    y = y.reshape(batch, y.shape[1] * stride, y.shape[3] * stride, features)
    bottom, right = ((side - 1) * stride + size - padding for side in (height, width))
    return y[:, padding:bottom, padding:right]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _conv(x: Array, kernel: Array, strides: _Pair, pads: tuple[_Pair, _Pair], precision: Any) -> Array:
    static = {"strides": strides, "pads": pads, "precision": precision}
    return lax.platform_dependent(
        x, kernel, cpu=functools.partial(_forward_cpu, **static), default=functools.partial(_plain, **static)
    )


def _save(x: Array, kernel: Array, strides: _Pair, pads: tuple[_Pair, _Pair], precision: Any) -> Any:
    return _conv(x, kernel, strides, pads, precision), (x, kernel)


def _backward(strides: _Pair, pads: tuple[_Pair, _Pair], precision: Any, saved: Any, grad: Array) -> Any:
    static = {"strides": strides, "pads": pads, "precision": precision}
    return lax.platform_dependent(
        *saved,
        grad,
        cpu=functools.partial(_backward_cpu, **static),
        default=functools.partial(_gradients, functools.partial(_plain, **static)),
    )


_conv.defvjp(_save, _backward)
# All convolutions of a network that are of the same shapes are traced as one; each still stands in its program.
_conv_once = jax.jit(_conv, static_argnums=(2, 3, 4), inline=True)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4, 5))
def _depthwise(
    x: Array, kernel: Array, strides: _Pair, pads: tuple[_Pair, _Pair], dilation: _Pair, precision: Any
) -> Array:
    static = {"strides": strides, "pads": pads, "dilation": dilation}
    plain = functools.partial(_plain_depthwise, **static, precision=precision)
    return lax.platform_dependent(x, kernel, cpu=functools.partial(_shifted_sum, **static), default=plain)


def _save_depthwise(x: Array, kernel: Array, *static: Any) -> Any:
    return _depthwise(x, kernel, *static), (x, kernel)


def _backward_depthwise(
    strides: _Pair, pads: tuple[_Pair, _Pair], dilation: _Pair, precision: Any, saved: Any, grad: Array
) -> Any:
    static = {"strides": strides, "pads": pads, "dilation": dilation}
    plain = functools.partial(_plain_depthwise, **static, precision=precision)
    return lax.platform_dependent(
        *saved,
        grad,
        cpu=functools.partial(_gradients, functools.partial(_shifted_sum, **static)),
        default=functools.partial(_gradients, plain),
    )


_depthwise.defvjp(_save_depthwise, _backward_depthwise)
_depthwise_once = jax.jit(_depthwise, static_argnums=(2, 3, 4, 5), inline=True)


def _plain_depthwise(
    x: Array, kernel: Array, *, strides: _Pair, pads: tuple[_Pair, _Pair], dilation: _Pair, precision: Any
) -> Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        strides,
        pads,
        rhs_dilation=dilation,
        dimension_numbers=_LAYOUT,
        feature_group_count=x.shape[3],
        precision=precision,
    )


def _shifted_sum(x: Array, kernel: Array, *, strides: _Pair, pads: tuple[_Pair, _Pair], dilation: _Pair) -> Array:
    """A depthwise convolution: for each tap of the kernel the map shifted, times the tap's channels."""
    x = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), (*pads[0], 0), (*pads[1], 0), (0, 0, 0)))
    height, width = (
        (x.shape[axis + 1] - (kernel.shape[axis] - 1) * dilation[axis] - 1) // strides[axis] for axis in (0, 1)
    )

    def shifted(i: int, j: int) -> Array:
        top, left = i * dilation[0], j * dilation[1]
        return x[:, top : top + height * strides[0] + 1 : strides[0], left : left + width * strides[1] + 1 : strides[1]]

    taps = itertools.product(range(kernel.shape[0]), range(kernel.shape[1]))
    return functools.reduce(jnp.add, [shifted(i, j) * kernel[i, j, 0] for i, j in taps])


def _plain(x: Array, kernel: Array, *, strides: _Pair, pads: tuple[_Pair, _Pair], precision: Any) -> Array:
    return lax.conv_general_dilated(x, kernel, strides, pads, dimension_numbers=_LAYOUT, precision=precision)


def _gradients(forward: Any, x: Array, kernel: Array, grad: Array) -> tuple[Array, Array]:
    return jax.vjp(forward, x, kernel)[1](grad)


def _forward_cpu(x: Array, kernel: Array, *, strides: _Pair, pads: tuple[_Pair, _Pair], precision: Any) -> Array:
    if _is_pointwise(kernel, pads):
        return _dot(x[:, :: strides[0], :: strides[1]], kernel[0, 0], (3, 0), precision)
    return _in_bands(x, kernel, strides=strides, pads=pads, precision=precision)


def _backward_cpu(
    x: Array, kernel: Array, grad: Array, *, strides: _Pair, pads: tuple[_Pair, _Pair], precision: Any
) -> tuple[Array, Array]:
    if _is_pointwise(kernel, pads):
        x_grad = _dot(grad, kernel[0, 0], (3, 1), precision)
        kernel_grad = lax.dot_general(
            x[:, :: strides[0], :: strides[1]], grad, (((0, 1, 2), (0, 1, 2)), ((), ())), precision=precision
        )
        gaps = [(0, n - (m - 1) * s - 1, s - 1) for n, m, s in zip(x.shape[1:3], grad.shape[1:3], strides, strict=True)]
        return lax.pad(x_grad, jnp.zeros((), x.dtype), ((0, 0, 0), *gaps, (0, 0, 0))), kernel_grad[None, None]
    (top, _), (left, _) = pads
    reached = (
        (top, (grad.shape[1] - 1) * strides[0] - top + kernel.shape[0] - x.shape[1]),
        (left, (grad.shape[2] - 1) * strides[1] - left + kernel.shape[1] - x.shape[2]),
    )
    used, reached = _crop(x, reached)
    kernel_grad = _kernel_gradient(used, kernel, grad, strides=strides, pads=reached, precision=precision)
    if kernel.shape[0] < strides[0] or kernel.shape[1] < strides[1]:
        plain = functools.partial(_plain, strides=strides, pads=pads, precision=precision)
        return _gradients(plain, x, kernel, grad)[0], kernel_grad
    return _input_gradient(grad, kernel, x.shape, strides=strides, pads=pads, precision=precision), kernel_grad


def _is_pointwise(kernel: Array, pads: tuple[_Pair, _Pair]) -> bool:
    return kernel.shape[:2] == (1, 1) and pads == ((0, 0), (0, 0))


def _dot(a: Array, b: Array, axes: _Pair, precision: Any) -> Array:
    return lax.dot_general(a, b, (((axes[0],), (axes[1],)), ((), ())), precision=precision)


def _crop(x: Array, pads: tuple[_Pair, _Pair]) -> tuple[Array, tuple[_Pair, _Pair]]:
    """`x` without what negative padding takes away, and the rest of the padding.

    XLA's CPU convolutions of jax 0.10 read outside their input for some negative paddings.
    """
    (top, bottom), (left, right) = pads
    x = x[:, max(-top, 0) : x.shape[1] + min(bottom, 0), max(-left, 0) : x.shape[2] + min(right, 0)]
    return x, ((max(top, 0), max(bottom, 0)), (max(left, 0), max(right, 0)))


def _in_bands(x: Array, kernel: Array, *, strides: _Pair, pads: tuple[_Pair, _Pair], precision: Any) -> Array:
    """The convolution of each band of output rows on its own, so that they can run side by side."""
    x, ((low, high), columns) = _crop(x, pads)
    if kernel.shape[0] * kernel.shape[1] > x.shape[1] * x.shape[2]:
        return _as_product(x, kernel, strides=strides, pads=((low, high), columns), precision=precision)
    size, stride, height = kernel.shape[0], strides[0], x.shape[1]
    rows = (height + low + high - size) // stride + 1
    parts: list[Array] = []
    for first, last in _bands(rows, _BAND_ROWS):
        start, stop = first * stride - low, (last - 1) * stride - low + size  # in rows of x, padding outside [0, H)
        top, bottom = min(max(start, 0), stop), max(min(stop, height), start)
        band_pads = ((top - start, stop - bottom), columns)
        parts.append(_plain(x[:, top:bottom], kernel, strides=strides, pads=band_pads, precision=precision))
    return jnp.concatenate(parts, axis=1)


def _as_product(x: Array, kernel: Array, *, strides: _Pair, pads: tuple[_Pair, _Pair], precision: Any) -> Array:
    """The convolution as one product of the map, shifted by every tap, with the whole kernel."""
    rows = _shifted_rows(x, kernel.shape[:2], strides=strides, pads=pads)
    return _dot(jnp.concatenate(rows, axis=3), kernel.reshape(-1, kernel.shape[3]), (3, 0), precision)


def _shifted_rows(
    x: Array, taps: tuple[int, ...], *, strides: _Pair, pads: tuple[_Pair, _Pair]
) -> list[Float[Array, "B P Q WC"]]:
    """Of each row of a kernel the map as its taps see it, one tap's channels after the other's."""
    x = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), (*pads[0], 0), (*pads[1], 0), (0, 0, 0)))
    high, wide = ((x.shape[axis + 1] - taps[axis]) // strides[axis] * strides[axis] + 1 for axis in (0, 1))

    def row(i: int) -> Array:
        seen = [x[:, i : i + high : strides[0], j : j + wide : strides[1]] for j in range(taps[1])]
        return jnp.concatenate(seen, axis=3)

    return [row(i) for i in range(taps[0])]


def _kernel_gradient(
    x: Array, kernel: Array, grad: Array, *, strides: _Pair, pads: tuple[_Pair, _Pair], precision: Any
) -> Array:
    """The gradient by the kernel: a product for each of its rows, or of each band of output channels on its own."""
    if min(kernel.shape[2:]) >= _WIDE:
        cells = (((0, 1, 2), (0, 1, 2)), ((), ()))
        rows = _shifted_rows(x, kernel.shape[:2], strides=strides, pads=pads)
        return jnp.stack([lax.dot_general(row, grad, cells, precision=precision) for row in rows]).reshape(kernel.shape)
    forward = functools.partial(_plain, strides=strides, pads=pads, precision=precision)
    parts = [
        _gradients(forward, x, kernel[..., first:last], grad[..., first:last])[1]
        for first, last in _bands(kernel.shape[3], _BAND_FEATURES)
    ]
    return jnp.concatenate(parts, axis=3)


def _bands(length: int, least: int) -> list[_Pair]:
    """Where the bands of an axis begin and end; none is shorter than `least` but a single one."""
    count = max(1, min(_BANDS, length // least))
    return list(itertools.pairwise(length * band // count for band in range(count + 1)))


def _input_gradient(
    grad: Array,
    kernel: Array,
    shape: tuple[int, ...],
    *,
    strides: _Pair,
    pads: tuple[_Pair, _Pair],
    precision: Any,
) -> Array:
    """Gradient by the input, [B, H, W, C], of a convolution with output gradient [B, P, Q, O].

    Rows of x whose index leaves the same remainder by the stride are reached by the same taps of the kernel, at
    consecutive rows of `grad`: a plain convolution for each remainder. The rows are then interleaved.
    """
    batch, height, width, channels = shape
    rows = [_phase(r, height, kernel.shape[0], strides[0], pads[0][0], grad.shape[1]) for r in range(strides[0])]
    columns = [_phase(r, width, kernel.shape[1], strides[1], pads[1][0], grad.shape[2]) for r in range(strides[1])]
    kernel = jnp.swapaxes(kernel, 2, 3)
    parts: list[Array] = []
    for row_taps, row_pads in rows:
        across: list[Array] = []
        for column_taps, column_pads in columns:
            taps = jnp.flip(kernel[row_taps, column_taps], (0, 1))
            part, rest = _crop(grad, (row_pads, column_pads))
            across.append(_in_bands(part, taps, strides=(1, 1), pads=rest, precision=precision))
        parts.append(jnp.stack(across, axis=3))
    full = jnp.stack(parts, axis=2)
    full = full.reshape(batch, full.shape[1] * strides[0], full.shape[3] * strides[1], channels)
    return full[:, :height, :width]


def _phase(remainder: int, size: int, kernel: int, stride: int, low: int, outputs: int) -> tuple[slice, _Pair]:
    """Taps that reach the inputs with this remainder by the stride, and the padding of `grad` that aligns them."""
    first = (remainder + low) % stride
    last_output = (remainder + low - first) // stride  # that tap `first` brings to the phase's first input
    first_output = last_output + 1 - len(range(first, kernel, stride))
    return slice(first, None, stride), (-first_output, -(-size // stride) + last_output - outputs)


def max_pool(
    x: Float[Array, "B H W C"], kernel: int, stride: int = 1, *, padding: int | None = None, ceil: bool = False
) -> Float[Array, "B P Q C"]:
    """Square max pool: cells outside the map never win.

    A window's maximum is built of maxima of shifted maps, one axis after the other, because XLA's CPU backend is slow
    at the gradient of a window reduction. Equal largest cells of a window share its gradient.

    Args:
      kernel: side of the window in cells.
      padding: cells around the map; None for kernel // 2, which with stride 1 keeps the size.
      ceil: round the size up instead of down: a last window may reach over the padding, but starts in the map.

    Raises:
      ValueError: if `kernel` is even and no padding is given: half of it would shift the map.
    """
    if padding is None and kernel % 2 == 0:
        raise ValueError(f"max_pool centres odd kernels only, got kernel {kernel}; use {kernel + 1}, or give a padding")
    pad = kernel // 2 if padding is None else padding
    for axis in (1, 2):
        size = x.shape[axis]
        room = size + 2 * pad - kernel
        count = (-(-room // stride) if ceil else room // stride) + 1
        if ceil and (count - 1) * stride >= size + pad:
            count -= 1
        after = (count - 1) * stride + kernel - pad - size
        x = lax.pad(x, jnp.array(-jnp.inf, x.dtype), [(pad, after, 0) if a == axis else (0, 0, 0) for a in range(4)])
        if stride > 1:
            length = (count - 1) * stride + 1
            parts = [lax.slice_in_dim(x, i, i + length, stride, axis) for i in range(kernel)]
            x = functools.reduce(jnp.maximum, parts)
            continue
        seen = 1
        while seen < kernel:
            shift = min(seen, kernel - seen)
            length = x.shape[axis] - shift
            x = jnp.maximum(
                lax.slice_in_dim(x, 0, length, axis=axis), lax.slice_in_dim(x, shift, shift + length, axis=axis)
            )
            seen += shift
    return x
