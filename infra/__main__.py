"""The file that Pulumi runs; see `main` in Pulumi.yaml."""

from decant.program import run

run()
