"""The process that knows tables, rules and DNS."""
