"""What the GPU does with our own kernels: launchers of ``kernels/*.cu``, which CuPy compiles when they are first used.

They take and return contiguous arrays of CuPy. What a kernel doesn't take (float64, mostly) the array code of ``ops``
does, which is written for both.
"""
