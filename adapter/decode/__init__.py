"""Token ids -> text. One object per choice; what it holds back comes with `flush()`."""

from adapter.decode.detokenizer import Detokenizer, TokenTable
from adapter.decode.stop_scanner import StopScanner

__all__ = ["Detokenizer", "StopScanner", "TokenTable"]
