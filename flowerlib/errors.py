"""The one exception that is meant for users, and how it quotes what it can't vouch for."""

from pydantic import ValidationError

LONGEST = 300  # characters of a foreign error or value in a message


class UserError(Exception):
    """Something that the user can mend.

    The message is one paragraph: what went wrong, where, and how to mend it. The command line prints it
    without a traceback and exits non-zero; in a notebook it is the last line of the error.
    """


def one_line(thing: object) -> str:
    """A foreign error, or a value from a file, as a part of a message: on one line, and not long."""
    if isinstance(thing, ValidationError):
        places = [(".".join(map(str, each["loc"])), each["msg"]) for each in thing.errors(include_url=False)]
        thing = "; ".join(f"{place}: {message}" if place else message for place, message in places)
    if isinstance(thing, Exception):
        thing = getattr(thing, "strerror", None) or str(thing) or type(thing).__name__
    text = " ".join(str(thing).split())
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
