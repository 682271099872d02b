"""The process that keeps mail on disk and decides when it is tried."""
