"""What can go wrong with models by name; each message is one sentence that says what to do."""


class CheckpointError(ValueError):
    """A directory that is not a sound checkpoint; the message says what is wrong with it."""


class UnknownModelError(ValueError):
    """A name that no model has; the message gives the closest ones."""


class HubError(RuntimeError):
    """A hub that does not have what was asked for, refuses it, or does not answer."""
