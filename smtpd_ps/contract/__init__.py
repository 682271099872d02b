"""What may be said (messages, routes) and done (policy) by each process.

`values` and `settings` are the nouns, `messages` the verbs, `routes` the table of who may
say what to whom and when, `policy` what the kernel lets each process do. Loaded everywhere.
"""
