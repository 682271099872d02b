"""Code that runs as a mail user."""
