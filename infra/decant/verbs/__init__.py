"""The verbs on the running site: status, logs, one-off commands and others, for fabfile.py and the Makefile."""
