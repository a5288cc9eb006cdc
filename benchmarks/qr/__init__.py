"""Do QR codes of 32x32 pixels scan once they are upscaled to 128x128? ``python -m benchmarks.qr`` measures it.

``samples`` makes the codes, ``baselines`` upscales them without learning, ``readers`` reads them, ``scores`` counts.
"""
