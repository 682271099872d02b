"""Sans-I/O cores: values in, values out; clock and randomness are handed in."""
