"""The filter and table programs that come with smtpd_ps, each with a `main`.

They run as users of their own (`_sps_filter`, `_sps_table`), started by the parent as any other program, and
import nothing of the daemon but pure code. What they need beside it is in pyproject.toml's optional groups.
"""
