"""The directives of smtpd.conf: a table from keyword to production.

A new directive is a function that takes the Parser, and a line in `PRODUCTIONS`. One that
OpenSMTPD has and we do not have yet stands in `UNSUPPORTED`, so that its use is an error that
says so.
"""

from smtpd_ps.config.directives.actions import action
from smtpd_ps.config.directives.filters import admd, filter_, proc
from smtpd_ps.config.directives.limits import bounce, mda, mta, queue, scheduler, smtp, srs
from smtpd_ps.config.directives.listen import listen
from smtpd_ps.config.directives.match import match
from smtpd_ps.config.directives.pki import authority, pki
from smtpd_ps.config.directives.tables import table
from smtpd_ps.config.parser import Parser, Production

UNSUPPORTED: tuple[str, ...] = ()


def _unsupported(p: Parser) -> None:
    keyword = p.taken
    p.fail(keyword, f"{keyword.text} is not supported yet")


_SUPPORTED: dict[str, Production] = {
    "action": action,
    "admd": admd,
    "bounce": bounce,
    "ca": authority,
    "filter": filter_,
    "listen": listen,
    "match": match,
    "mda": mda,
    "mta": mta,
    "pki": pki,
    "proc": proc,
    "queue": queue,
    "scheduler": scheduler,
    "smtp": smtp,
    "srs": srs,
    "table": table,
}
PRODUCTIONS: dict[str, Production] = {**_SUPPORTED, **dict.fromkeys(UNSUPPORTED, _unsupported)}
