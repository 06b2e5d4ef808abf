"""Rehearsal of a pod run without a pod: the real train step through the real TPU compiler, on any machine.

What cannot be compiled for a slice, or does not fit its memory, is known before the slice is rented. Needs `libtpu`
(the extra `tpu`), which compiles on machines without a TPU too.
"""

import math
import os
import re
import time
from typing import Any

import jax

from ylosia_jax.compiled import compile_step
from ylosia_jax.experiment import Experiment
from ylosia_jax.train.sharding import make_mesh
from ylosia_jax.types import UserError

# Chip -> peak bf16 FLOP/s, memory bandwidth in bytes/s, memory in bytes (cloud.google.com/tpu/docs, system pages).
CHIPS: dict[str, tuple[float, float, int]] = {
    "v4": (275e12, 1.2288e12, 32 << 30),
    "v5e": (197e12, 8.19e11, 16 << 30),
    "v5p": (459e12, 2.765e12, 95 << 30),
    "v6e": (918e12, 1.64e12, 32 << 30),
}
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_BITS = {"pred": 8, "bf16": 16} | {f"{kind}{bits}": bits for kind in "fsu" for bits in (8, 16, 32, 64)}


def make_plan(experiment: Experiment, topology: str) -> dict[str, Any]:
    """Compiles an experiment's train step for a TPU slice.

    Args:
      topology: chip and shape, `v5e:16x16`.

    Returns:
      What `ylosia plan --json` writes: memory and bytes in bytes, times in seconds, FLOPs and bytes moved an image. Of
      several canvases, those of the one that needs most memory.

    Raises:
      UserError: if the slice is unknown, `libtpu` is missing, or the step does not fit (says by how much).
    """
    chip, devices = _devices(topology)
    mesh = make_mesh(devices)
    # The number of steps shapes nothing but the schedule's constants.
    compiled = compile_step(experiment, mesh, 1000)
    started = time.perf_counter()
    try:
        programs = [compiled.step.lower(compiled.form, batch).compile() for batch in compiled.batches]
    except jax.errors.JaxRuntimeError as error:
        raise UserError(f"{topology}: the step cannot be compiled: {_reason(error)}") from error
    took = time.perf_counter() - started

    flops_peak, bandwidth, limit = CHIPS[chip]
    # Of several canvases, the one whose step is largest.
    program = max(programs, key=_memory)
    used, cost = _memory(program), program.cost_analysis()
    per_chip = experiment.data.batch_size / mesh.size
    roofline = max(cost["flops"] / flops_peak, cost["bytes accessed"] / bandwidth)
    return {
        "topology": topology,
        "chips": mesh.size,
        "batch_per_chip": per_chip,
        "memory_per_chip": used,
        "memory_limit": limit,
        "flops_per_image": cost["flops"] / per_chip,
        "bytes_per_image": cost["bytes accessed"] / per_chip,
        "roofline_seconds": roofline,
        "roofline_images_per_second_per_chip": per_chip / roofline,
        "collectives": collectives(program.as_text()),
        "compile_seconds": took,
    }


def collectives(hlo: str) -> list[dict[str, Any]]:
    """Kinds of communication in a compiled program's text, with how many there are and the bytes that they return.

    A collective inside a loop or a branch counts once.
    """
    found: dict[str, list[int]] = {}
    for shape, kind in re.findall(rf"= (.+?) ({'|'.join(COLLECTIVES)})(?:-start)?\(", hlo):
        found.setdefault(kind, []).append(_size(shape))
    return [{"kind": kind, "bytes": sum(sizes), "count": len(sizes)} for kind, sizes in sorted(found.items())]


def to_text(plan: dict[str, Any]) -> str:
    """A plan for people."""
    gib = 1 << 30
    rows = [
        f"{plan['topology']}: {plan['chips']} chips, {plan['batch_per_chip']:g} images a chip",
        f"memory a chip      {plan['memory_per_chip'] / gib:.2f} of {plan['memory_limit'] / gib:.0f} GiB",
        f"FLOPs an image     {plan['flops_per_image'] / 1e9:.1f} G",
        f"bytes an image     {plan['bytes_per_image'] / 1e6:.0f} MB moved in memory",
        f"roofline           {plan['roofline_seconds'] * 1e3:.1f} ms a step, at most "
        f"{plan['roofline_images_per_second_per_chip']:.0f} images/s a chip",
    ]
    for row in plan["collectives"]:
        rows.append(f"{row['kind']:<18} {row['count']} in the program, {row['bytes'] / 1e6:.2f} MB a chip")
    return "\n".join([*rows, f"compiled in        {plan['compile_seconds']:.0f} s"])


def _devices(topology: str) -> tuple[str, Any]:
    """The chip's name and the slice's devices, described but not there."""
    chip, _, shape = topology.partition(":")
    if chip not in CHIPS or not re.fullmatch(r"\d+x\d+(x\d+)?", shape):
        raise UserError(
            f"{topology!r} is no TPU slice: give CHIP:SHAPE such as v5e:16x16, CHIP one of {', '.join(CHIPS)}"
        )
    # libtpu would otherwise ask the cloud's metadata server, or a TPU's driver, where it runs.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", f"{chip}-{math.prod(map(int, shape.split('x')))}")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    jax.config.update("jax_platforms", "cpu")
    from jax.experimental import topologies

    try:
        return chip, topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    except Exception as error:
        raise UserError(
            f"{topology}: no TPU compiler for it here ({_reason(error)}): pip install 'ylosia-jax[tpu]', "
            "and name a shape that the chip comes in"
        ) from error


def _memory(program: Any) -> int:
    """Bytes that a chip needs to run a program."""
    memory = program.memory_analysis()
    # Donated arguments become outputs in place: they count once.
    used = memory.argument_size_in_bytes + memory.temp_size_in_bytes + memory.generated_code_size_in_bytes
    return used + memory.output_size_in_bytes - memory.alias_size_in_bytes


def _size(shape: str) -> int:
    """Bytes of an HLO shape such as `(f32[64,3]{1,0}, bf16[8]{0})`."""
    total = 0
    for kind, sides in re.findall(r"(\w+)\[([\d,]*)\]", shape):
        total += _BITS.get(kind, 0) // 8 * math.prod(int(side) for side in sides.split(",") if side)
    return total


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
