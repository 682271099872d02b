"""The folder of the mailbox user, for workloads that end in a Maildir."""

import os
import shutil
from pathlib import Path

from bench.peer import Peer
from bench.room import MAILBOX_USER


def make_mailbox(peer: Peer) -> Path:
    """Where the mailbox user may make a Maildir; its parent is made anew."""
    home = peer.site.work / "mail"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(mode=0o755)
    os.chown(home, peer.site.accounts.uids[MAILBOX_USER], peer.site.accounts.gids[MAILBOX_USER])
    return home / "box"
