"""The one exception that is meant for users."""


class UserError(Exception):
    """Something that the user can mend.

    The message is one paragraph: what went wrong, where, and how to mend it. The command line prints it
    without a traceback and exits non-zero; in a notebook it is the last line of the error.
    """
