"""The one kind of error that the user can mend."""


class InputError(ValueError):
    """Configuration, data, weights or prompts are wrong; the message says in one line what to do."""


def reason_of(error: Exception, longest: int = 300) -> str:
    """What libraries, hubs and networks raise, in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:longest]
