"""What a model is called by the name of its file."""

from __future__ import annotations

import re
from pathlib import Path

_QUANTISATION = re.compile(r"[-._](?:I?Q\d\w*|B?F(?:16|32)|MXFP4\w*|UD-\w+)$", re.IGNORECASE)


def name_of(path: Path) -> str:
    """A model's id from its file's name, without the quantisation."""
    return _QUANTISATION.sub("", path.stem) or path.stem


def plain_name(name: str) -> str:
    """What a server calls a model, without the way to the file that some servers call it by."""
    return name_of(Path(name)) if name.endswith(".gguf") else name
