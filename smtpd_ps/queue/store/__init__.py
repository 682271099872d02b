"""Where the queue keeps mail: a small protocol, an embedded SQLite backend and one in memory.

Runs in queue alone; sqlite3 is imported by `embedded` and nowhere else in the daemon.
"""
