"""The garbage collector of a gateway process."""

from __future__ import annotations

import gc

# New objects between two looks at the young ones. Nearly all that a request makes is freed without being looked for.
_YOUNG = 30_000


def settle() -> None:
    """Leave what there is now, modules and long-lived parts, out of all collections to come. To be called once, when
    everything has been put together: a look at it all would hold every stream up.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, *gc.get_threshold()[1:])
