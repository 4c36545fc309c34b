"""PostgreSQL refuses to run as root, and initdb as a uid without a name: who runs it instead.

No user is added and no permission outside the lab's own folder is changed.
"""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from pathlib import Path

from cf_lab_resources.embedded.errors import EmbeddedError
from cf_lab_resources.embedded.processes import succeeds

NOBODY = 65534  # the overflow uid of Linux, which owns nothing
# Asked of a shell, since setpriv itself still has root's view of the program it executes.
_REACHES = '"$0" --version && test -x "$1"'


@dataclass(frozen=True)
class Demotion:
    """How a command runs unprivileged.

    Attributes:
        prefix: Words to put before the command.
        owner: The uid that must own the data, or None where it stays as it is.
    """

    prefix: tuple[str, ...] = ()
    owner: int | None = None

    def take_over(self, folder: Path) -> None:
        """Makes the uid own the folder and all in it."""
        if self.owner is None:
            return
        for path in (folder, *folder.rglob("*")):
            os.chown(path, self.owner, self.owner, follow_symlinks=False)


def in_namespace() -> Demotion:
    """A user namespace in which this user is seen as nobody; files stay this user's."""
    return Demotion(
        ("unshare", "--user", f"--map-user={NOBODY}", f"--map-group={NOBODY}", "--"),
    )


def as_user(uid: int) -> Demotion:
    """Another uid, without any of root's rights."""
    return Demotion(
        ("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--"), owner=uid
    )


def demotion(program: Path, folder: Path) -> Demotion:
    """The first way that can run the program and reach the folder (which must exist).

    Raises:
        EmbeddedError: This is root, and there is none.
    """

    def reaches(way: Demotion) -> bool:
        return succeeds((*way.prefix, "sh", "-c", _REACHES, str(program), str(folder.parent)))

    if os.geteuid() != 0:
        return in_namespace() if not _has_name() and reaches(in_namespace()) else Demotion()
    owner = folder.stat().st_uid
    for way in [as_user(owner)] if owner != 0 else [in_namespace(), as_user(NOBODY)]:
        if reaches(way):
            return way
    raise EmbeddedError(
        "PostgreSQL does not run as root, and here root can neither open a user namespace "
        f"(unshare --user) nor run {program} with data in {folder} as another user (setpriv). "
        "Run as an ordinary user, put the lab and CF_LAB_HOME where every user may read, "
        "or set CF_LAB_POSTGRES_URL to a server."
    )


def _has_name() -> bool:
    """Whether this user is known to the system, unlike the bare uids that containers run as."""
    try:
        pwd.getpwuid(os.geteuid())
    except KeyError:
        return False
    return True
