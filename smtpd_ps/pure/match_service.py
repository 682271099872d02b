"""A whole table compared with a text, by the service that it gives: domains, addresses, networks, words, patterns.

Runs in lookup. The keys of a database stay in its file, but for those that match more than what equals them
(pure/table_db); the predicate may then raise TableUnreadable.
"""

from typing import Literal, assert_never

from smtpd_ps.pure.match_tables import (
    Predicate,
    match_domains,
    match_mailaddrs,
    match_netaddrs,
    match_patterns,
    match_words,
)  # fmt: skip
from smtpd_ps.pure.table import Table
from smtpd_ps.pure.table_program import ProgramTable

Service = Literal["domain", "mailaddr", "netaddr", "string", "regex"]


def predicate_of(table: Table, service: Service, delimiter: str) -> Predicate:
    """Whether a text in lower case is in the table. Raises EreError where patterns are none."""
    if isinstance(table, ProgramTable):
        return table.matcher(service)
    keys, stored = (table.entries, None) if table.patterns is None else (table.patterns, table.entries)
    match service:
        case "domain":
            return match_domains(keys, stored)
        case "mailaddr":
            return match_mailaddrs(keys, delimiter, stored)
        case "netaddr":
            return match_netaddrs(keys, stored)
        case "string":
            return match_words(keys) if stored is None else stored.__contains__
        case "regex":
            return match_patterns(table.entries)
        case never:
            assert_never(never)
