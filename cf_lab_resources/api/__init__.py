"""The lookup API: the current release over HTTP, read-only.

`app` puts it together and serves it, `lookups` finds records in Redis or Postgres, `endpoints`
answers for records and pictures, `front` stands before all routes, `answers` has the forms of
answers, `documentation` describes them.
"""

from cf_lab_resources.api.app import create_app, serve

__all__ = ["create_app", "serve"]
