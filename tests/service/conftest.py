"""The fixtures of the service tests."""

from service_scratch import scratch

__all__ = ["scratch"]
