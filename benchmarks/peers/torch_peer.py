"""The benchmark in PyTorch, eager, on the CPU, written to be fast: fused Adam, either memory layout."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.cases import DENSE, LEARNING_RATE, SCALE, Case
from tinysrgan.models.vgg19 import MEAN_BGR

NAME = f"PyTorch {torch.__version__}"
LAYOUTS = {"channels last": torch.channels_last, "channels first": torch.contiguous_format}


class Residual(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class Preprocess(nn.Module):
    """RGB in [-1, 1] to VGG19's BGR in 0..255 minus the mean."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flip(1) * 127.5 + (127.5 - torch.tensor(MEAN_BGR)[:, None, None])


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
    f = case.filters
    layers: list[nn.Module] = [conv(3, f), nn.LeakyReLU(0.2)]
    channels = [f, f, 2 * f, 2 * f, 4 * f, 4 * f, 8 * f, 8 * f]
    for i in range(7):
        stride = 2 if i % 2 == 0 else 1
        layers += [conv(channels[i], channels[i + 1], stride=stride), nn.BatchNorm2d(channels[i + 1])]
        layers += [nn.LeakyReLU(0.2)]
    side = -(-case.hr_size // 16)
    dense = nn.Linear(side * side * 8 * f, DENSE)
    return nn.Sequential(*layers, nn.Flatten(), dense, nn.LeakyReLU(0.2), nn.Linear(DENSE, 1))


def vgg19() -> nn.Sequential:
    """VGG19 up to block3_conv4, with its ReLU."""
    layers: list[nn.Module] = [Preprocess()]
    channels = 3
    for outputs in (64, 64, 0, 128, 128, 0, 256, 256, 256, 256):
        layers += [conv(channels, outputs), nn.ReLU(inplace=True)] if outputs else [nn.MaxPool2d(2)]
        channels = outputs or channels
    return nn.Sequential(*layers).requires_grad_(False)


def prepare(case: Case, layout: str = "channels last") -> Callable[[], object]:
    """The function to time."""
    if hasattr(os, "sched_getaffinity"):
        torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(0)
    memory: Any = dict(memory_format=LAYOUTS[layout])
    g: Any = generator(case).to(**memory)
    lr = torch.rand(case.batch, 3, case.size, case.size).to(**memory)
    if case.work == "inference":
        g.eval()

        def upscale() -> Tensor:
            with torch.inference_mode():
                return g(lr)

        return upscale

    hr = torch.rand(case.batch, 3, case.hr_size, case.hr_size).to(**memory)
    g_adam = torch.optim.Adam(g.parameters(), LEARNING_RATE, fused=True)
    if case.work == "pretrain":

        def pretrain_step() -> None:
            g_adam.zero_grad()
            functional.mse_loss(g(lr), hr).backward()
            g_adam.step()

        return pretrain_step

    d: Any = discriminator(case).to(**memory)
    vgg: Any = vgg19().to(**memory)
    d_adam = torch.optim.Adam(d.parameters(), LEARNING_RATE, fused=True)
    labels = torch.zeros(case.batch, 1), torch.ones(case.batch, 1)

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
        g_adam.zero_grad()
        fake = g.train()(lr)
        with torch.no_grad():
            target = vgg(hr)
        adversarial = functional.binary_cross_entropy_with_logits(d(fake), labels[1])
        (functional.mse_loss(vgg(fake), target) + 1e-3 * adversarial).backward()
        g_adam.step()

    return adversarial_step
