"""Operations on the GPU: launchers of ``kernels/*.cu``, which CuPy compiles on first use.

They take and return contiguous CuPy arrays, in float32 or float64.
"""
