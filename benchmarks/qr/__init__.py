"""Measures whether QR codes of 32x32 pixels scan after upscaling to 128x128: ``python -m benchmarks.qr``.

``samples`` makes the codes, ``baselines`` upscales them without learning, ``readers`` reads them, ``scores`` evaluates
the results. ``sweeps`` changes one effect of a photograph at a time, ``real_life`` measures examples/rescue.py.
"""
