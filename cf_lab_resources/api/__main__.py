"""`python -m cf_lab_resources.api`: serves the stores that the environment names."""

from __future__ import annotations

import argparse

from cf_lab_resources import embedded
from cf_lab_resources.api.access import read_secret
from cf_lab_resources.api.app import DEFAULT_HOST, DEFAULT_PORT, serve
from cf_lab_resources.settings import Settings


def main() -> None:
    """Serves until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(prog="cf_lab_resources.api", description=__doc__)
    parser.add_argument("--host", default=DEFAULT_HOST, help="address to listen on")
    parser.add_argument("--port", default=DEFAULT_PORT, type=int, help="port to listen on")
    options = parser.parse_args()
    settings = Settings.from_env()
    with embedded.running(settings) as endpoints:
        serve(
            endpoints.postgres_url,
            endpoints.redis_url,
            endpoints.bucket_url,
            read_secret(settings.api_secret),
            host=options.host,
            port=options.port,
        )


if __name__ == "__main__":
    main()
