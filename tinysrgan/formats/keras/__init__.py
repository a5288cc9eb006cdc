"""Keras' HDF5 files: weights, layer order, model config, value ranges, whole nets."""
