"""Errors that a user can cause and correct. Commands print their one sentence without a traceback and exit with 2."""


class UserError(ValueError):
    """Base of all errors whose message is one sentence for the user: what is wrong, where, and what to do."""


class UnlikeWarning(UserWarning):
    """The upscaled image, shrunk back, differs from the input: the generator does not suit it."""
