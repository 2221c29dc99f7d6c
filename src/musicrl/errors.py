"""The one exception the command line turns into a sentence."""


class UserError(Exception):
    """A mistake the user can mend. The message is one sentence: what is wrong, where, and the mend.

    The command line prints it without a traceback and exits with code 2.
    """
