"""What a person sees of a run at the terminal: a line a finished step, and what steps say."""

from __future__ import annotations

import logging
import sys

import dagster as dg

SHOWN_EVENTS = {
    "ASSET_MATERIALIZATION",
    "ASSET_CHECK_EVALUATION",
    "STEP_UP_FOR_RETRY",
    "STEP_FAILURE",
}


class ProgressFormatter(logging.Formatter):
    """One short line a record: the step, then the message."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as ``12:30:01  counterfactuals__dataset  message``."""
        meta = getattr(record, "dagster_meta", None) or {}
        step = meta.get("step_key") or "-"
        event = meta.get("dagster_event")
        message = meta.get("orig_message") or record.getMessage()
        if event is not None and event.message:
            message = event.message
        first_line = (message.splitlines() or [""])[0]
        return f"{self.formatTime(record, '%H:%M:%S')}  {step:<32}  {first_line}"


class ProgressFilter(logging.Filter):
    """Lets through what steps say, and of Dagster's own events the ones worth a line."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to show a record."""
        event = (getattr(record, "dagster_meta", None) or {}).get("dagster_event")
        if event is None:
            return record.levelno >= logging.INFO
        return event.event_type_value in SHOWN_EVENTS


@dg.logger({}, description="Short progress lines on standard error.")
def progress_logger(context: dg.InitLoggerContext) -> logging.Logger:
    """The lab's console logger."""
    logger = logging.getLogger("cf_lab.run")
    logger.propagate = False
    logger.setLevel(logging.DEBUG)  # Dagster reports what succeeded at this level
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(ProgressFormatter())
        handler.addFilter(ProgressFilter())
        logger.addHandler(handler)
    return logger
