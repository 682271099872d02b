"""The fixtures of the queue's tests; what else they share is in queue_rig, whose name no other folder has."""

from queue_rig import rig, rigs

__all__ = ["rig", "rigs"]
