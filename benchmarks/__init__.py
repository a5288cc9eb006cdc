"""The speed of tinysrgan compared with other libraries: ``python -m benchmarks``. Not part of the installed package."""
