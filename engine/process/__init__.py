"""The process that a script runs in: entry and exit status, signals, several processes, what makes it repeatable."""
