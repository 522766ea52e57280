"""The agent's log: one JSON object per line on standard error, for people with `jq` and for log collectors.

Environments, standard inputs and request headers are never logged, so tokens are not either.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from functools import partialmethod
from typing import Any

from genie.cni.errors import CniError


class Log:
    """A logger that takes the fields of a line as keywords: `log.info("installed", files=[…])`."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def log(self, level: int, message: str, exc_info: Any = None, **fields: Any) -> None:
        self._logger.log(level, message, exc_info=exc_info, extra={"fields": fields})

    info = partialmethod(log, logging.INFO)
    warning = partialmethod(log, logging.WARNING)
    error = partialmethod(log, logging.ERROR)


class Complaint:
    """A problem that may come back at each attempt: logged when it begins, and when it changes."""

    def __init__(self, log: Log, message: str, level: int = logging.WARNING) -> None:
        self._log, self._message, self._level = log, message, level
        self.text = ""

    def about(self, error: Exception, **fields: Any) -> None:
        text = str(error) if isinstance(error, CniError) else f"{type(error).__name__}: {error}"
        if text != self.text:
            self.text = text
            self._log.log(self._level, self._message, **fields, error=text)

    def over(self) -> bool:
        """Note that the problem is over; returns whether there was one."""
        before, self.text = self.text, ""
        return bool(before)


class JsonFormatter(logging.Formatter):
    """Formats a line: time, level, msg, then the line's own fields."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "msg": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


def setup(level: str) -> None:
    """Log to standard error from here on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
