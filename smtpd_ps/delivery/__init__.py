"""The process that hands mail on: relay, LMTP, agents."""
