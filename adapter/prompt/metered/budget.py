"""Budget of a rendering: how much a template may compute, and how much memory it may fill."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Set, ValuesView
from typing import Any

from jinja2.exceptions import SecurityError
from jinja2.utils import Namespace

MAX_RENDERED = 16_000_000
"""Maximum number of characters of a rendered prompt, and of characters or items of any value that a template makes."""

BASE_UNITS = 250_000
"""Units of work of each rendering. A unit is about 0.1 us, see the weights of the nodes of a template's syntax tree."""

BASE_MEMORY = 4_000_000
"""Bytes of all texts and lists that each rendering may make, whether or not they are kept."""

# What a rendering has in addition, by its input. Some published templates look at each character of a message, and some
# at all messages for each message, or append to a text for each.
_UNITS_PER_CHARACTER = 20
_UNITS_PER_OBJECT = 250
_UNITS_PER_PAIR = 0.5
_MAX_UNITS_OF_PAIRS = 20_000_000
_COPIES = 32
_BYTES_PER_OBJECT = 256
_COPIES_PER_OBJECT = 0.25
_MAX_MEMORY_OF_PAIRS = 64_000_000

# Those units are given out in slices, as long as the objects of the whole process have not become many more.
_SLICE = 1_000_000
_MAX_NEW_OBJECTS = 3_000_000

MAX_BITS = 4096
"""Maximum size of an integer: larger ones take long to multiply and to convert."""

_TOO_MUCH = 2**62
_SMALL = 64
_COLLECTIONS = (list, tuple, Set, ValuesView)
_CONTAINERS = (Mapping, *_COLLECTIONS)


class BudgetExceeded(SecurityError):
    """The template has used up its budget."""

    def __init__(self) -> None:
        super().__init__("the chat template takes too much time or memory")


class Budget:
    """Work and memory that are left to a rendering.

    It grows with `variables`, the input of the rendering, when it is used up: few renderings need that. Methods that
    spend raise BudgetExceeded, and do so from then on.
    """

    __slots__ = ("_all_memory", "_objects", "_reserve", "_variables", "left", "memory", "units")

    def __init__(self, units: int = BASE_UNITS, variables: Mapping[str, Any] | None = None) -> None:
        self.units = self.left = units
        self.memory = self._all_memory = BASE_MEMORY
        self._variables = variables
        self._reserve = self._objects = 0

    @property
    def spent(self) -> int:
        """Number of units spent so far."""
        return self.units - self.left

    @property
    def made_bytes(self) -> int:
        """Size of all texts and lists that were made so far, whether or not they were kept."""
        return min(self._all_memory - self.memory, self._all_memory)

    def refill(self) -> None:
        """Take more units and memory if there are any. Raises BudgetExceeded if they do not suffice."""
        if self._variables is not None:
            self._reserve, memory = _allowance(self._variables)
            self.memory += memory
            self._all_memory += memory
            self._variables = None
            self._objects = sys.getallocatedblocks()
        if self.left < 0 < self._reserve and sys.getallocatedblocks() - self._objects < _MAX_NEW_OBJECTS:
            units = min(self._reserve, max(_SLICE, -self.left))
            self._reserve -= units
            self.units += units
            self.left += units
        if self.left < 0 or self.memory < 0:
            # For good, even if the template goes on: some filters and tests catch all exceptions.
            self.left, self._reserve = -1, 0
            raise BudgetExceeded

    def spend(self, units: int) -> None:
        """Spend `units` of work. Numbers of templates may be negative or not a number, which must not add to it."""
        self.left -= units if units > 0 else 0
        if self.left < 0:
            self.refill()

    def ensure(self, length: int) -> None:
        """Check, before it is made, that there is memory for a value of `length` characters or items."""
        if length <= _SMALL:
            return
        if length > self.memory or length > MAX_RENDERED:
            self.memory -= length if length <= MAX_RENDERED else _TOO_MUCH
            self.refill()
            self.memory += length

    def made(self, value: Any) -> Any:
        """Spend the memory of a new value, without that of the values that it contains, and return it."""
        if isinstance(value, str):
            if len(value) > _SMALL:
                self.fill(len(value), sys.getsizeof(value))
        elif isinstance(value, int):
            if value.bit_length() > MAX_BITS:
                raise SecurityError(f"an integer exceeds {MAX_BITS} bits")
        elif isinstance(value, _COLLECTIONS) or type(value) is bytes or type(value) is dict:
            self.fill(len(value), sys.getsizeof(value))
        return value

    def fill(self, length: int, size: int) -> None:
        """Spend the memory of a value of `length` characters or items, and `size` bytes."""
        if not size > 0:
            return
        self.memory -= size if length <= MAX_RENDERED else _TOO_MUCH
        self.left -= size // 256
        if self.left < 0 or self.memory < 0:
            self.refill()

    def weigh(self, value: Any) -> int:
        """Spend what it takes to look at a value and all it contains, however often it contains it. Return the units.

        Its representation has about 16 characters for each unit. A value that contains itself exceeds any budget.
        """
        units, stack = 0, [value]
        while stack:
            item = stack.pop()
            kind = type(item)
            if kind is str:
                cost = 1 + (len(item) >> 4)
            elif kind is dict:
                cost = 2 + 2 * len(item)
            elif kind is list or kind is tuple:
                cost = 2 + len(item)
            else:
                cost = _weight(item)
            units += cost
            self.left -= cost
            if self.left < 0:
                self.refill()
            # Only now, as the contents may be too many.
            if kind is list or kind is tuple:
                stack += item
            elif kind is not str:
                _push_contents(item, stack)
        return units

    def items(self, values: Iterable[Any], cost: int = 1) -> Iterable[Any]:
        """Return `values`, each of which costs `cost` units when it is taken."""
        if isinstance(values, list | tuple | str | dict) and len(values) <= _SMALL:
            self.spend(cost * len(values))
            return values
        return self._counted(values, cost)

    def _counted(self, values: Iterable[Any], cost: int) -> Iterator[Any]:
        for value in values:
            self.left -= cost
            if self.left < 0:
                self.refill()
            yield value

    def listed(self, values: Iterable[Any], cost: int = 1) -> Any:
        """Return a collection of `values`: themselves, or a list if they are an iterator. Each costs `cost` units."""
        if isinstance(values, str | list | tuple | dict | Set):
            self.spend(cost * len(values))
            return values
        return self.made([*self._counted(values, cost)])

    def text(self, value: Any) -> str:
        """Return a value as text."""
        if type(value) is str:
            return value
        if isinstance(value, str):
            return str(value)
        self.ensure(self.weigh(value) << 4)
        return self.made(str(value))  # type: ignore[no-any-return]

    def joined(self, *values: Any) -> str:
        """Return the texts of all values as one."""
        return self.concat([*map(self.text, values)])

    def concat(self, texts: Iterable[str], separator: str = "") -> str:
        """Return all texts as one. They are a list, or come from a block, and are counted as they come."""
        pieces = texts if isinstance(texts, list) else [*map(self.made, self._counted(texts, 1))]
        length = sum(map(len, pieces)) + len(separator) * len(pieces)
        if length <= _SMALL:
            return separator.join(pieces)
        self.ensure(length)
        return self.made(separator.join(pieces))  # type: ignore[no-any-return]

    def weighed(self, value: Any) -> Any:
        """Spend what it takes to compare a value, and return it."""
        kind = type(value)
        if kind is str:
            if len(value) > 256:
                self.spend(len(value) >> 6)
        elif kind is not int and kind is not bool and value is not None:
            self.weigh(value)
        return value

    def key(self, value: Any) -> Any:
        """Spend what it takes to find a value in a dict, and return it."""
        if type(value) is tuple:
            self.weigh(value)
        return value

    def contains(self, item: Any, values: Any) -> bool:
        """Return whether `item` is in `values`."""
        kind = type(values)
        if kind is dict:
            self.key(item)
        elif kind is str:
            self.search(len(values), len(item) if isinstance(item, str) else 0)
        elif (kind is list or kind is tuple) and isinstance(item, str | int | float | None):
            self.spend(len(values) * (1 + (len(item) >> 6 if isinstance(item, str) else 0)))
        elif isinstance(values, _CONTAINERS) or kind is bytes:
            self.weigh(values)
        elif kind is not range or type(item) is not int:
            values = self.listed(values)
            self.weigh(values)
        return item in values

    def search(self, length: int, sought: int) -> None:
        """Spend what it takes to look for a text of the length `sought` in one of `length`, from its start."""
        # Python compares at each position in short texts, and is linear in long ones.
        self.spend((length * min(sought, 100)) >> 10 if length <= 30_000 else length >> 6)


def _weight(value: Any) -> int:
    if isinstance(value, str | bytes):
        return 1 + (len(value) >> 4)
    if isinstance(value, int):
        # Conversion to decimal digits takes quadratic time.
        return 2 + (value.bit_length() >> 5)
    return 4 + 2 * len(value) if isinstance(value, _CONTAINERS) else 4


def _push_contents(value: Any, stack: list[Any]) -> None:
    if isinstance(value, _COLLECTIONS):
        stack += value
    elif isinstance(value, Mapping):
        stack += value
        stack += value.values()
    elif type(value) is Namespace:
        stack.append(object.__getattribute__(value, "_Namespace__attrs"))


def _allowance(variables: Mapping[str, Any]) -> tuple[int, int]:
    """Return the units and the memory that a rendering has for its variables: values as they come from JSON."""
    objects, length, size, stack = 0, 0, 0, [*variables.values()]
    while stack:
        value = stack.pop()
        objects += 1
        if isinstance(value, str):
            length += len(value)
            size += sys.getsizeof(value)
        elif isinstance(value, dict):
            stack += value.values()
        elif isinstance(value, list | tuple):
            stack += value
    units = _UNITS_PER_CHARACTER * length + _UNITS_PER_OBJECT * objects
    units += min(int(_UNITS_PER_PAIR * objects**2), _MAX_UNITS_OF_PAIRS)
    memory = _COPIES * size + _BYTES_PER_OBJECT * objects
    memory += min(int(_COPIES_PER_OBJECT * objects * size), _MAX_MEMORY_OF_PAIRS)
    return units, memory
