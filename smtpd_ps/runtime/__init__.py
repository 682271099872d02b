"""Process glue without policy: codec, channel, loop, TLS pump, spawn, child boot, log."""
