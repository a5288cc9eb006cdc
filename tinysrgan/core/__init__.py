"""Basics that import nothing from the rest: devices, errors, command-line conventions, atomic writes and paths."""
