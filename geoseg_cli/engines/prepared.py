"""What an engine that is opened on suspicion must not cost: nothing may have to be compiled or measured for it."""


class NotPreparedError(Exception):
    """Opening an engine would take the caller's time, and that was not wanted."""
