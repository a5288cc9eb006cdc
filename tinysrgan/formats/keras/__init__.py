"""Keras' HDF5 files: its weights, the order of its layers, its model description, whole nets."""
