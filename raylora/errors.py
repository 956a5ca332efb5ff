"""The error that a user can act on."""

from __future__ import annotations

from collections.abc import Iterator


class UserError(ValueError):
    """Something the user asked for cannot be done.

    The message is one line that names the field, the value and the remedy; the command line prints it as it
    is, without a traceback.

    Attributes:
        message: the line.
        field: dotted name of what is wrong (`search.trials`, `--tokens`); "" where it is no single field.
        value: what it was set to; None where the message says all there is.
        allowed: what would be taken instead: values, or words.

    All survive pickling. From a remote call they come back through `user_error_of`.

    Example:
        >>> try:
        ...     raylora.load_spec("spec.yaml", overrides={"search.trials": 0})
        ... except raylora.UserError as error:
        ...     print(error)
        search.trials = 0: allowed: at least 1
    """

    def __init__(self, message: str, *, field: str = "", value: object = None, allowed: object = None) -> None:
        # One line, whatever a name or a path in it holds.
        message = " ".join(message.splitlines())
        super().__init__(message)
        self.message = message
        self.field, self.value, self.allowed = field, value, allowed

    @classmethod
    def at(cls, field: str, told: str, *, value: object = None, allowed: object = None) -> UserError:
        """The error of one field, whose line begins with its name: `field: told`."""
        return cls(f"{field}: {told}", field=field, value=value, allowed=allowed)

    @classmethod
    def around(cls, begin: str, error: Exception, *, field: str = "", value: object = None) -> UserError:
        """The error whose line is another's with `begin` before it: `search.options.` before `width: 0 is too small`.

        Value and what is allowed are the other's where it tells them.

        Args:
            field: what is wrong; "" for the field that the other names, below the one that `begin` does.
            value: what that was set to, where the other does not say it.
        """
        inner = getattr(error, "field", "")
        field = field or ".".join(part for part in (begin.strip(" :."), inner) if part)
        told = getattr(error, "value", None)
        return cls(
            f"{begin}{error}",
            field=field,
            value=value if told is None else told,
            allowed=getattr(error, "allowed", None),
        )

    def __str__(self) -> str:
        # Not of `args`, which Ray Data appends its advice to.
        return self.message


class RunFailed(UserError):
    """A run could not go on, for no mistake in what was asked: a process died, memory or the disk ran out.

    The message says why and how to go on; the run's `errors.log` has the traceback. A command ends with status 1.
    """


def user_error_of(error: BaseException) -> UserError | None:
    """The UserError that a remote call ended with, as it was raised there; None where it was another failure.

    Ray raises copies that carry the remote traceback in their text, and Ray Data wraps those once more: what they
    keep as their cause is the error itself.
    """
    return next((e for e in _behind(error) if isinstance(e, UserError) and not hasattr(e, "cause")), None)


def _behind(error: BaseException) -> Iterator[BaseException]:
    """The error and all that it was raised from, the outermost first."""
    waiting: list[BaseException | None] = [error]
    seen: set[int] = set()
    while waiting:
        found = waiting.pop(0)
        if found is None or id(found) in seen:
            continue
        seen.add(id(found))
        yield found
        waiting += [getattr(found, "cause", None), found.__cause__]


class Interrupted(KeyboardInterrupt):
    """Ctrl-C in a run. The message says how to go on."""
