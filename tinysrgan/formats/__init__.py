"""Files on disk: checkpoints, HDF5, published weights, image metadata."""
