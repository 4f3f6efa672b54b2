"""The exceptions whose message is all that a user needs."""

from typing import ClassVar


class UserError(ValueError):
    """Something from outside that the user can mend: its message is one line that says what is wrong and the fix.

    The command line prints the message alone and exits with `status`.
    """

    status: ClassVar[int] = 2


class MachineError(UserError):
    """The machine refuses: no space, permission, memory or network. The input is as good as it was."""

    status: ClassVar[int] = 1


class DamagedError(UserError):
    """Bytes of a file were read and are not those that were written."""
