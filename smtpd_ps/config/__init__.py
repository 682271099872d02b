"""smtpd.conf: lexer, grammar, checks, and the compiler to one slice for each process."""
