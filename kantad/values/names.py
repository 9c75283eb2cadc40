"""Readable names for identifiers, from a function of the user's, which may fail.

It is asked once for each identifier, as far as the bounded memory goes. What it raises is told once, and
then it is as if there were no name. Called where changes are printed.
"""

from collections.abc import Callable
from typing import Any, Final

from kantad.values.errors import told
from kantad.values.lines import cut
from kantad.values.recent import Recent

MOST: Final = 4096  # identifiers, or twice as many
LONGEST: Final = 256  # characters of one, columns of a name


class Names:
    """What identifiers are called. `resolve` gives a name or None; `complain` is told of the first failure."""

    def __init__(self, resolve: Callable[[str], Any], complain: Callable[[str], None]) -> None:
        self.resolve, self.complain = resolve, complain
        self.known: Recent[str, str] = Recent(MOST)  # an empty text: it has no name
        self.failed = False

    def __call__(self, identifier: str) -> str:
        """The name of an identifier; itself where it has none."""
        name = self.known.young.get(identifier)
        if name is None:
            name = self.known.older(identifier)
        if name is None:
            name = self._asked(identifier)
            if len(identifier) <= LONGEST:
                self.known.keep(identifier, name)
        return name or identifier

    def _asked(self, identifier: str) -> str:
        try:
            name = self.resolve(identifier)
            if name is not None and type(name) is not str:
                raise TypeError(f"it gives {type(name).__name__}, not text or None")
        except (Exception, SystemExit) as error:
            if not self.failed:
                self.failed = True
                self.complain(f"{told(error)} (asked for {identifier!r}; told once)")
            return ""
        return cut(name or "", LONGEST)
