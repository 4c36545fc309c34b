"""What a person sees of a run at the terminal: a line a finished step, and what steps say."""

from __future__ import annotations

import logging
import sys

import dagster as dg

SHOWN_EVENTS = {"ASSET_MATERIALIZATION", "ASSET_CHECK_EVALUATION", "STEP_FAILURE"}


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
        return f"{self.formatTime(record, '%H:%M:%S')}  {step:<32}  {message.splitlines()[0]}"


class ProgressFilter(logging.Filter):
    """Lets through what steps say, and of Dagster's own events the ones worth a line."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to show a record."""
        event = (getattr(record, "dagster_meta", None) or {}).get("dagster_event")
        return event is None or event.event_type_value in SHOWN_EVENTS


@dg.logger(
    config_schema=dg.Field(str, default_value="INFO", is_required=False),
    description="Short progress lines on standard error.",
)
def progress_logger(context: dg.InitLoggerContext) -> logging.Logger:
    """The lab's console logger."""
    logger = logging.getLogger("cf_lab.run")
    logger.propagate = False
    logger.setLevel(logging.INFO)
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(ProgressFormatter())
        handler.addFilter(ProgressFilter())
        logger.addHandler(handler)
    return logger
