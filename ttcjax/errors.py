"""The one exception for mistakes a user can mend."""


class UserError(ValueError):
    """Bad input from outside: its message is one line that says what is wrong and how to mend it.

    The command line prints the message alone and exits with status 2.
    """
