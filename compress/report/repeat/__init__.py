"""A recipe over seeds: facts, statistics, table and page."""
