"""The process that speaks to remote clients."""
