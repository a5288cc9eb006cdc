"""Files on disk: checkpoints, HDF5, and the weights that others publish."""
