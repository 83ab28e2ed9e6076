"""What stands at one address, from its first answer on, through all its absences."""

from __future__ import annotations

from collections.abc import Callable

from subnet.authorizers import AuthorizerBase
from subnet.detect.connect import Reached, reach, told
from subnet.detect.detect import Found, Unsuitable, look
from subnet.errors import NodeError, Unauthorized
from subnet.http.node_spec import NodeSpec

Report = Callable[[str], None]
# What is asked again only after a pause, in seconds, as it stays so until someone does something about it.
_LASTING = (Unauthorized, Unsuitable)
_PAUSE = 10.0


class Finder:
    """`reached` is what stands at `spec.url`, None before it was found. It belongs to the finder, see aclose().

    `report` gets one line when it is found, when it is another than before, and when nothing could be found yet.
    """

    def __init__(
        self, spec: NodeSpec, authorizer: AuthorizerBase | None, report: Report, clock: Callable[[], float]
    ) -> None:
        self.reached: Reached | None = None
        self._spec = spec
        self._authorizer = authorizer
        self._report = report
        self._clock = clock
        self._found: Found | None = None
        self._refusal: NodeError | None = None
        self._until = 0.0
        self._said = ""

    async def find(self) -> None:
        """See who is there now. Raises NodeError; one that is lasting is raised again for a while, unasked."""
        if await self._is_back():
            return
        if self._refusal is not None and self._clock() < self._until:
            raise self._refusal
        try:
            found, reached = await self._look()
        except NodeError as error:
            lasting = isinstance(error, _LASTING)
            self._refusal, self._until = error, self._clock() + (error.retry_after or (_PAUSE if lasting else 0.0))
            if self.reached is None or lasting:
                peer = "" if self._spec.peer in str(error) else f"{self._spec.peer}: "
                self._say(f"{peer}{error}; retrying until it answers")
            raise
        if self._spec.kind != "subnet":
            self._say(told(self._spec, found, reached))

    async def aclose(self) -> None:
        """Safe to call twice."""
        reached, self.reached = self.reached, None
        if reached is not None:
            await reached.protocol.aclose()

    async def _is_back(self) -> bool:
        """Whether a subnet node answers as one again: nobody else speaks as it does."""
        if self.reached is None or self._found is None or self._found.kind != "subnet":
            return False
        try:
            await self.reached.protocol.rpc_info()
        except NodeError:
            return False
        return True

    async def _look(self) -> tuple[Found, Reached]:
        found = await look(self._spec, None if self._found is None else self._found.kind)
        before = self.reached
        if before is not None and found == self._found:
            return found, before
        self.reached, self._found = await reach(self._spec, found, self._authorizer), found
        if before is not None:
            await before.protocol.aclose()
        return found, self.reached

    def _say(self, line: str) -> None:
        if line != self._said:
            self._said = line
            self._report(line)
