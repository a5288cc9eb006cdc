"""The same nets and the same training step in tinysrgan and in other frameworks, one file each.

Every file has ``prepare(case, mode)``, which returns the function to time; it takes no arguments.
"""
