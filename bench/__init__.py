"""Side-by-side benchmark of smtpd_ps, OpenSMTPD and Postfix on one machine; docs/PERFORMANCE.md describes it.

Runs as root on Debian, with the standard library alone. Nothing is installed but shared libraries: the other
servers are unpacked from their packages and run in mount name spaces of their own.
"""
