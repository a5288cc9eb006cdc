"""How fast tinysrgan is beside others: ``python -m benchmarks``. Not part of the package that users install."""
