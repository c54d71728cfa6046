"""Running checks one after the other."""

from collections.abc import Callable


def run_all(checks: dict[str, Callable[[], None]], subject: object) -> None:
    """Calls every check; what one raises gets a note that names it and what was checked."""
    for name, check in checks.items():
        try:
            check()
        except Exception as error:
            error.add_note(f"in the check {name!r} of {subject!r}")
            raise
