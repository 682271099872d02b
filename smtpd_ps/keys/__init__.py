"""The process that holds the private keys and only signs."""
