"""The layers, each with its forward and its backward pass written by hand. ``base`` says what every layer does."""

from tinysrgan.layers.activation import LeakyReLU, PReLU, ReLU, Rescale, Sigmoid, Tanh
from tinysrgan.layers.base import Buffer, Layer, Parameter, frozen
from tinysrgan.layers.container import Residual, Sequential
from tinysrgan.layers.conv import Conv2D
from tinysrgan.layers.dense import Dense
from tinysrgan.layers.norm import BatchNorm
from tinysrgan.layers.shape import Flatten, MaxPool, PixelShuffle, Upsample

__all__ = [
    "BatchNorm",
    "Buffer",
    "Conv2D",
    "Dense",
    "Flatten",
    "Layer",
    "LeakyReLU",
    "MaxPool",
    "PReLU",
    "Parameter",
    "PixelShuffle",
    "ReLU",
    "Rescale",
    "Residual",
    "Sequential",
    "Sigmoid",
    "Tanh",
    "Upsample",
    "frozen",
]
