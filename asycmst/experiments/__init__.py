"""Complete runs, from data to tables and pictures."""
