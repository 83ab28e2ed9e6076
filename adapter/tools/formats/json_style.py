"""Parameters of the formats whose calls have their arguments in one JSON object."""

from __future__ import annotations

import re
from typing import Literal

import msgspec

_MARK = re.compile(r"<[^<>\s]+>|\[[A-Z_]+\]")


class JsonStyle(msgspec.Struct, frozen=True, kw_only=True):
    """How a family of models writes calls. Texts are what a model writes; white space at their ends may be missing in
    an answer, and an empty text is not written. `name` is used in settings.

    - `section` encloses all calls, `brackets` the list of them within it, and `call` each call. `between` separates
      calls. `other_sections` are parsed as well, but not written in grammars.
    - `shape`: an `object` has a member for the name (`name_key`) and one for the arguments (`arguments_key`). A `keyed`
      object has the arguments as its only member, under the name. For `named`, the object is the arguments, and the
      name is written between `before_name` and `after_name`; `after_arguments` follows the object.
    - `number` numbers the calls: in an `object` it is the key of the member with the number, otherwise the text between
      name and number. `id_mark` may precede an id between name and arguments.
    - `leading_id`: an id is before `before_name`.
    - `bare`: calls are written without the opening mark at the start of an answer. `maybe_bare`: they are written with
      it, but parsed without it as well.
    - `text_name` is written in place of a name, before text that is not a call.
    - `tokens` are control tokens in these texts that do not look like marks.
    """

    name: str
    section: tuple[str, str] = ("", "")
    other_sections: tuple[tuple[str, str], ...] = ()
    brackets: tuple[str, str] = ("", "")
    call: tuple[str, str] = ("", "")
    between: str = ""
    shape: Literal["object", "keyed", "named"] = "object"
    name_key: str = "name"
    arguments_key: str = "arguments"
    before_name: str = ""
    after_name: str = ""
    after_arguments: str = ""
    number: str = ""
    id_mark: str = ""
    leading_id: bool = False
    bare: bool = False
    maybe_bare: bool = False
    text_name: str = ""
    tokens: tuple[str, ...] = ()

    @property
    def marks(self) -> tuple[str, ...]:
        """Marks that may be control tokens of the model."""
        names = (self.before_name, self.after_name, self.after_arguments, self.id_mark)
        texts = (*self.section, *self.call, *names, *(text for section in self.other_sections for text in section))
        return tuple(dict.fromkeys(mark for text in texts for mark in _MARK.findall(text)) | dict.fromkeys(self.tokens))

    @property
    def start_marks(self) -> tuple[str, ...]:
        """Marks that start calls. First characters recur only at the start of a mark."""
        openings = (self.section[0], *(opening for opening, _ in self.other_sections), self.call[0])
        return tuple(dict.fromkeys(_start(text.strip()) for text in openings if text.strip()))


def _start(opening: str) -> str:
    """Return `opening` up to where its first character recurs, apart from repetitions at its start."""
    repeated = len(opening) - len(opening.lstrip(opening[0]))
    end = opening.find(opening[0], repeated)
    return opening if end < 0 else opening[:end].rstrip()
