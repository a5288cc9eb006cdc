"""A trained generator at work: load it, fuse its layers, upscale large images in tiles."""
