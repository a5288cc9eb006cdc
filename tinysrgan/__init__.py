"""tinysrgan: an SRGAN from scratch on NumPy, small enough to be read in an afternoon.

Start with ``train.py`` (the idea), then ``layers/`` (the mathematics) and ``models/`` (the nets).
"""

__version__ = "0.1.0"
