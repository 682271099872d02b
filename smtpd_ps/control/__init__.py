"""The process that takes the operator's requests."""
