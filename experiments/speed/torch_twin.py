"""The n-scale detector's layers in plain PyTorch: what the same arithmetic costs there. A speed reference only.

Run by `run.py` as a subprocess: a line of JSON in asks for one measurement, a line of JSON out answers it.
"""

import json
import sys
import time

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate


class ConvNorm(nn.Sequential):
    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1):
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.03),
            nn.SiLU(inplace=True),
        )


class C2f(nn.Module):
    """Half the channels go through bottlenecks in a row; all that comes out of them is fused by a 1x1 convolution."""

    def __init__(self, inputs: int, outputs: int, repeats: int, shortcut: bool):
        super().__init__()
        hidden = outputs // 2
        self.shortcut = shortcut
        self.split = ConvNorm(inputs, outputs)
        self.blocks = nn.ModuleList(
            nn.Sequential(ConvNorm(hidden, hidden, 3), ConvNorm(hidden, hidden, 3)) for _ in range(repeats)
        )
        self.fuse = ConvNorm((2 + repeats) * hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.split(x).chunk(2, 1))
        for block in self.blocks:
            y = block(parts[-1])
            parts.append(parts[-1] + y if self.shortcut else y)
        return self.fuse(torch.cat(parts, 1))


class SPPF(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.reduce = ConvNorm(channels, channels // 2)
        self.pool = nn.MaxPool2d(5, 1, 2)
        self.fuse = ConvNorm(2 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.reduce(x)]
        for _ in range(3):
            parts.append(self.pool(parts[-1]))
        return self.fuse(torch.cat(parts, 1))


def stage(inputs: int, outputs: int, repeats: int) -> nn.Sequential:
    return nn.Sequential(ConvNorm(inputs, outputs, 3, 2), C2f(outputs, outputs, repeats, shortcut=True))


def branch(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(ConvNorm(inputs, hidden, 3), ConvNorm(hidden, hidden, 3), nn.Conv2d(hidden, outputs, 1))


class Twin(nn.Module):
    """3,157,184 parameters at 80 classes."""

    def __init__(self, num_classes: int = 80):
        super().__init__()
        self.to_c3 = nn.Sequential(ConvNorm(3, 16, 3, 2), stage(16, 32, 1), stage(32, 64, 2))
        self.to_c4 = stage(64, 128, 2)
        self.to_c5 = nn.Sequential(stage(128, 256, 1), SPPF(256))
        self.top4, self.top3 = C2f(384, 128, 1, shortcut=False), C2f(192, 64, 1, shortcut=False)
        self.down3, self.out4 = ConvNorm(64, 64, 3, 2), C2f(192, 128, 1, shortcut=False)
        self.down4, self.out5 = ConvNorm(128, 128, 3, 2), C2f(384, 256, 1, shortcut=False)
        widths = (64, 128, 256)
        self.box = nn.ModuleList(branch(width, 64, 64) for width in widths)
        self.classes = nn.ModuleList(branch(width, max(64, min(num_classes, 100)), num_classes) for width in widths)

    def forward(self, x: Tensor) -> list[Tensor]:
        c3 = self.to_c3(x)
        c4 = self.to_c4(c3)
        c5 = self.to_c5(c4)
        p4 = self.top4(torch.cat([interpolate(c5, scale_factor=2), c4], 1))
        p3 = self.top3(torch.cat([interpolate(p4, scale_factor=2), c3], 1))
        n4 = self.out4(torch.cat([self.down3(p3), p4], 1))
        n5 = self.out5(torch.cat([self.down4(n4), c5], 1))
        levels = (p3, n4, n5)
        return [head(x) for heads in (self.box, self.classes) for head, x in zip(heads, levels, strict=True)]


def main() -> None:
    layouts = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
    twins = {name: Twin().to(memory_format=layout) for name, layout in layouts.items()}
    optimizers = {name: torch.optim.SGD(twin.parameters(), lr=1e-6) for name, twin in twins.items()}
    parameters = sum(p.numel() for p in twins["contiguous"].parameters())
    print(json.dumps({"version": torch.__version__, "threads": torch.get_num_threads(), "parameters": parameters}))
    for line in sys.stdin:
        ask = json.loads(line)
        twin, optimizer = twins[ask["layout"]], optimizers[ask["layout"]]
        image = torch.rand(ask["batch"], 3, ask["size"], ask["size"]).to(memory_format=layouts[ask["layout"]])
        twin.train(ask["measure"] == "train")
        seconds = []
        for _ in range(ask["calls"] + 1):
            start = time.perf_counter()
            if ask["measure"] == "train":
                optimizer.zero_grad()
                sum((y**2).sum() for y in twin(image)).backward()
                optimizer.step()
            else:
                with torch.inference_mode():
                    twin(image)
            seconds.append(time.perf_counter() - start)
        print(json.dumps(seconds[1:]), flush=True)


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)
    main()
