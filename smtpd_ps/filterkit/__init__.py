"""A library for writing filters and tables of the mail server in Python; docs/FILTERKIT.md tells how.

Runs in the programs' own processes, never in the daemon's. `events` has what a filter is told and asked,
`answers` what it can say, `filter` and `table` the classes to derive from. The cores (`core`, `filter_core`,
`table_core`) do no input or output; `run` is the loop around them.
"""

from smtpd_ps.filterkit.answers import Answer, Disconnect, Junk, Proceed, Reject, Report, Rewrite
from smtpd_ps.filterkit.data_stream import Message
from smtpd_ps.filterkit.filter import Filter, StopProgram
from smtpd_ps.filterkit.run import log, run_filter, run_table
from smtpd_ps.filterkit.session import Session
from smtpd_ps.filterkit.table import Service, Table
from smtpd_ps.filterkit.table_core import TableFailure

__all__ = [
    "Filter", "Session", "Message", "Answer", "Proceed", "Junk", "Reject", "Disconnect", "Rewrite", "Report",
    "Table", "Service", "TableFailure", "StopProgram", "run_filter", "run_table", "log",
]  # fmt: skip
