"""The verbs of the Makefile that work on real stacks: `python -m decant.cli VERB STACK`."""
