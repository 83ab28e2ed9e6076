"""Model ids derived from file names."""

from __future__ import annotations

import re
from pathlib import Path

_QUANTISATION = re.compile(r"[-._](?:I?Q\d\w*|B?F(?:16|32)|MXFP4\w*|UD-\w+)$", re.IGNORECASE)


def model_id_from_path(path: Path) -> str:
    """Return the file name without extension and quantisation suffix."""
    return _QUANTISATION.sub("", path.stem) or path.stem


def model_id_from_served_name(name: str) -> str:
    """Return a model id for the name that a server reports, which for some servers is the path of a GGUF file."""
    return model_id_from_path(Path(name)) if name.endswith(".gguf") else name
