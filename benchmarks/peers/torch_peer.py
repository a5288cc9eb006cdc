"""The benchmark in PyTorch, written to be fast: fused Adam; on the CPU either memory layout, on a GPU channels last,
cuDNN's choice of algorithms by trial, TF32 unless the case is strict, and eager, compiled or as a CUDA graph.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.cases import LEARNING_RATE, SCALE, VGG_LAYER, Case
from benchmarks.peers.torch_muon import Muon
from tinysrgan.models.vgg19 import BLOCKS, MEAN_BGR

NAME = f"PyTorch {torch.__version__}"
LAYOUTS = {"channels first": torch.contiguous_format}  # of all other modes: channels last


class Residual(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class Preprocess(nn.Module):
    """RGB in [-1, 1] to VGG19's BGR in 0..255 minus the mean."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shift", 127.5 - torch.tensor(MEAN_BGR)[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        return x.flip(1) * 127.5 + self.shift


def conv(in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1) -> nn.Module:
    return nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2)


def generator(case: Case) -> nn.Sequential:
    f = case.filters
    blocks = [
        Residual(conv(f, f), nn.BatchNorm2d(f), nn.PReLU(f), conv(f, f), nn.BatchNorm2d(f)) for _ in range(case.blocks)
    ]
    upscale: list[nn.Module] = []
    channels = f
    for _ in range(SCALE.bit_length() - 1):
        upscale.append(conv(channels, 4 * f))
        upscale.append(nn.PixelShuffle(2) if case.upscale == "shuffle" else nn.Upsample(scale_factor=2))
        channels = f if case.upscale == "shuffle" else 4 * f
        upscale.append(nn.PReLU(channels))
    body = Residual(*blocks, conv(f, f), nn.BatchNorm2d(f))
    return nn.Sequential(conv(3, f, 9), nn.PReLU(f), body, *upscale, conv(channels, 3, 9))


def discriminator(case: Case) -> nn.Sequential:
    f = case.discriminator_filters or case.filters
    layers: list[nn.Module] = [conv(3, f), nn.LeakyReLU(0.2)]
    channels = [f, f, 2 * f, 2 * f, 4 * f, 4 * f, 8 * f, 8 * f]
    for i in range(7):
        stride = 2 if i % 2 == 0 else 1
        layers += [conv(channels[i], channels[i + 1], stride=stride), nn.BatchNorm2d(channels[i + 1])]
        layers += [nn.LeakyReLU(0.2)]
    side = -(-case.hr_size // 16)
    dense = nn.Linear(side * side * 8 * f, case.dense)
    return nn.Sequential(*layers, nn.Flatten(), dense, nn.LeakyReLU(0.2), nn.Linear(case.dense, 1))


def vgg19(cut: str = VGG_LAYER) -> nn.Sequential:
    """VGG19 up to the last convolution of a block, with its ReLU."""
    layers: list[nn.Module] = [Preprocess()]
    channels = 3
    for convolutions, filters in BLOCKS[: int(cut[5])]:
        for _ in range(convolutions):
            layers += [conv(channels, filters), nn.ReLU(inplace=True)]
            channels = filters
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers[:-1]).requires_grad_(False)


def prepare(case: Case, mode: str = "channels last") -> Callable[[], object]:
    """The function to time. mode: a memory layout; on a GPU "eager", "torch.compile" or "CUDA graph"."""
    if hasattr(os, "sched_getaffinity"):
        torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = not case.exact
    if case.work == "inference":
        return upscaling(case, mode)
    run = layer(case) if case.layer else step(case, mode)
    return graph_of(run) if mode == "CUDA graph" else run


def net_for(case: Case, mode: str, net: nn.Module) -> Any:
    """The net on the case's device, in the mode's layout, compiled if the mode says so."""
    net = net.to(case.device, memory_format=LAYOUTS.get(mode, torch.channels_last))
    return torch.compile(net) if mode == "torch.compile" else net


def random(case: Case, mode: str, *shape: int) -> Tensor:
    return torch.rand(*shape, device=case.device).to(memory_format=LAYOUTS.get(mode, torch.channels_last))


def graph_of(run: Callable[[], Any]) -> Callable[[], Any]:
    """``run`` as a CUDA graph, captured after three runs in which PyTorch allocates and chooses algorithms."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = run()

    def replay() -> Any:
        graph.replay()
        return result

    return replay


def upscaling(case: Case, mode: str) -> Callable[[], object]:
    """On the CPU the net alone; on a GPU from 8 bits to 8 bits on the CPU, since the transfers count."""
    g = net_for(case, mode, generator(case)).eval()
    lr = random(case, mode, case.batch, 3, case.size, case.size)

    def enlarge() -> Tensor:
        with torch.inference_mode():
            return g(lr)

    if case.device == "cpu":
        return enlarge
    run = graph_of(enlarge) if mode == "CUDA graph" else enlarge
    pixels = torch.randint(0, 256, (case.batch, case.size, case.size, 3), dtype=torch.uint8)

    def upscale() -> Tensor:
        lr.copy_(pixels.to(case.device).permute(0, 3, 1, 2) / 127.5 - 1)
        return ((run() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu()

    return upscale


def layer(case: Case) -> Callable[[], object]:
    """A convolution or one of its gradients."""
    assert case.layer
    side, c, k, r, stride = case.layer
    x, w = random(case, "", case.batch, c, side, side), random(case, "", k, c, r, r)
    if case.work == "y":
        return lambda: functional.conv2d(x, w, None, stride, r // 2)
    dy = random(case, "", case.batch, k, side // stride, side // stride)
    wanted = [case.work == "dx", case.work == "dw", False]
    sizes: tuple[Any, ...] = (None, [stride] * 2, [r // 2] * 2, [1, 1], False, [0, 0], 1, wanted)
    return lambda: torch.ops.aten.convolution_backward(dy, x, w, *sizes)


def step(case: Case, mode: str) -> Callable[[], None]:
    """A training step."""
    g = net_for(case, mode, generator(case))
    lr = random(case, mode, case.batch, 3, case.size, case.size)
    hr = random(case, mode, case.batch, 3, case.hr_size, case.hr_size)
    adam: Any = dict(lr=LEARNING_RATE, fused=True, capturable=mode == "CUDA graph")
    g_optimizer: Any = Muon(g, **adam) if case.optimizer == "muon" else torch.optim.Adam(g.parameters(), **adam)
    if case.work == "pretrain":

        def pretrain_step() -> None:
            g_optimizer.zero_grad()
            functional.mse_loss(g(lr), hr).backward()
            g_optimizer.step()

        return pretrain_step

    d = net_for(case, mode, discriminator(case))
    features = nn.Identity() if case.content == "pixels" else net_for(case, mode, vgg19(case.content))
    d_adam = torch.optim.Adam(d.parameters(), **adam)
    labels = [torch.full((case.batch, 1), label, device=case.device) for label in (0.0, 1.0)]

    def discriminator_step(images: Tensor, label: Tensor) -> None:
        d_adam.zero_grad()
        functional.binary_cross_entropy_with_logits(d(images), label).backward()
        d_adam.step()

    def adversarial_step() -> None:
        with torch.no_grad():
            fake = g.eval()(lr)
        d.requires_grad_(True)
        discriminator_step(fake, labels[0])
        discriminator_step(hr, labels[1])

        d.requires_grad_(False)
        g_optimizer.zero_grad()
        fake = g.train()(lr)
        with torch.no_grad():
            target = features(hr)
        adversarial = functional.binary_cross_entropy_with_logits(d(fake), labels[1])
        (functional.mse_loss(features(fake), target) + 1e-3 * adversarial).backward()
        g_optimizer.step()

    return adversarial_step


def wait_for_gpu() -> None:
    torch.cuda.synchronize()


def gpu_memory() -> int:
    """The most memory that PyTorch has taken from the GPU, in bytes."""
    return torch.cuda.max_memory_reserved()
