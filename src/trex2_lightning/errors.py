"""The one kind of error that the user can mend."""


class InputError(ValueError):
    """Configuration, data, weights or prompts are wrong; the message says in one line what to do."""
