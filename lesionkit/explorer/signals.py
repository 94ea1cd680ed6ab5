"""Who fires what, and when: after a change each signal at most once, and only if what it stands for is different.

A key says what a signal stands for. Keys also tell whether a value that was computed from the same things can be used
again.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

T = TypeVar("T")
MOST_ROUNDS = 100
"""Rounds of signals that listeners may cause by making changes from within a signal."""


class Announcer:
    """Compares keys with those last announced.

    Parameters
    ----------
    keys : mapping of str to function
        Name -> function that returns the key, in the order of firing.
    emit : function of a name
        Fires a signal.
    settle : function of the names that have fired
        Called once everything is announced; it may make changes, which are announced too.
    """

    def __init__(
        self,
        keys: Mapping[str, Callable[[], Hashable]],
        emit: Callable[[str], object],
        settle: Callable[[frozenset[str]], object],
    ) -> None:
        self._keys = keys
        self._emit = emit
        self._settle = settle
        self._announced = {name: key() for name, key in keys.items()}
        self._values: dict[str, tuple[Hashable, Any]] = {}
        self._announcing = False

    def announce(self) -> None:
        """Fire what has changed. A change made by a listener is announced after the signals that are due already.

        Raises
        ------
        Exception
            What a listener raised, after all signals have fired.
        RuntimeError
            If listeners keep on changing things at every signal.
        """
        if self._announcing:
            return
        self._announcing = True
        failed: Exception | None = None
        unsettled: set[str] = set()
        try:
            for _ in range(MOST_ROUNDS):
                fired = False
                for name, key in self._keys.items():
                    now = key()
                    if now == self._announced[name]:
                        continue
                    self._announced[name], fired = now, True
                    unsettled.add(name)
                    try:
                        self._emit(name)
                    except Exception as error:  # the other views are not to blame
                        failed = failed or error
                if fired:
                    continue
                if not unsettled:
                    break
                names, unsettled = frozenset(unsettled), set()
                try:
                    self._settle(names)
                except Exception as error:
                    failed = failed or error
            else:
                raise RuntimeError(f"listeners changed the state in each of {MOST_ROUNDS} rounds of signals")
        finally:
            self._announcing = False
        if failed is not None:
            raise failed

    def cached(self, name: str, make: Callable[[], T], *, key: str = "") -> T:
        """Return a value that depends on what a signal stands for; made again only when that is different."""
        now = self._keys[key or name]()
        known = self._values.get(name)
        if known is None or known[0] != now:
            known = (now, make())
            self._values[name] = known
        value: T = known[1]
        return value
