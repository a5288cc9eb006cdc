"""Inference with a trained generator: load it, fuse its layers, upscale large images in tiles."""
