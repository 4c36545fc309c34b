"""Releases: a candidate is staged, judged by gates, and made current; or an earlier one again.

`candidate` says what a release is made of and loads it, `gates` judges it, `pointer` moves the
current release, `refusal` reads what Dagster knows of the gates. `assets` and `checks` show them
to Dagster.
"""
