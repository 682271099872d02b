"""What osdep raises. In a module of its own so that the platform modules can import it."""


class ConfineError(Exception):
    """The process could not be confined as its policy says; it must not serve."""
