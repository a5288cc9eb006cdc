"""Do QR codes of 32x32 pixels scan once they are upscaled to 128x128? ``python -m benchmarks.qr`` measures it.

``samples`` makes the codes, ``baselines`` upscale them without learning, ``readers`` read them, ``scores`` counts.
``sweeps`` changes one effect of a photograph at a time, ``real_life`` measures examples/rescue.py.
"""
