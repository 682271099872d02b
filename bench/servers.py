"""Which servers there are, and where they are set up."""

from collections.abc import Mapping
from pathlib import Path

from bench import kernel, peer_opensmtpd, peer_postfix, peer_smtpd_ps
from bench.packages import Packages
from bench.peer import Peer, Site
from bench.room import bench_accounts

PEERS: Mapping[str, type[Peer]] = {
    kind.name: kind for kind in (peer_smtpd_ps.SmtpdPs, peer_opensmtpd.OpenSMTPD, peer_postfix.Postfix)
}


def make_site(cache: Path, work: Path, load: kernel.Group) -> Site:
    """One for all servers."""
    users = (*peer_smtpd_ps.USERS, *peer_opensmtpd.USERS, *peer_postfix.USERS)
    return Site(work, Packages(cache), bench_accounts(users, peer_postfix.GROUPS), load)


def make_peer(site: Site, label: str) -> Peer:
    """`postfix`, or `postfix+tuned`. Raises ValueError for what is neither."""
    name, _plus, variant = label.partition("+")
    if name not in PEERS or variant not in PEERS[name].variants:
        known = ", ".join(
            f"{kind.name}+{one}" if one else kind.name for kind in PEERS.values() for one in kind.variants
        )
        raise ValueError(f"no server {label!r}: there are {known}")
    return PEERS[name](site, variant)
