"""The figures of a report, as plain data and as drawings."""
