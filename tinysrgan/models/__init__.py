"""The three nets of an SRGAN: generator, discriminator, and VGG19 for the content loss."""

from tinysrgan.models.discriminator import Discriminator
from tinysrgan.models.generator import Generator
from tinysrgan.models.vgg19 import VGG19

__all__ = ["VGG19", "Discriminator", "Generator"]
