"""From the tables of runs to the report."""
