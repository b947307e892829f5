"""Expected failures: the command line prints their message without a traceback."""


class UserError(Exception):
    """Something outside the program is wrong; the message says what, and what to do."""

    exit_code = 1
