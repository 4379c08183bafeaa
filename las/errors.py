"""The error that is meant for the user."""

import errno

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no room left, or none for this user or in one file


class UserError(Exception):
    """Something the user can mend: a file, a setting, a piece of data.

    The message says where, what was found, what was wanted and, where known, the way out. The command
    line prints it on one line and exits 1. A broken invariant is an `assert`, never a `UserError`.
    """


class Interrupted(UserError):
    """The user asked for the end of a run; all its ranks stop at the same place."""
