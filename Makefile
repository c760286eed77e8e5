# Every verb of the project. `make` alone lists them.
STACK ?= dev
PYTHON ?= python3
# To recipes these go by the environment: what stands in one is never read as shell.
export PYTHON STACK RELEASE MACHINE
python := .venv/bin/python

.PHONY: help try rehearse try-down install up preview destroy rollback replace test lint bench docs lock

help:
	@echo 'make try                    the dev stack on a throwaway machine of this computer; ends with a URL that answers'
	@echo 'make try-down               remove it again'
	@echo 'make rehearse STACK=name    the same for any stack'
	@echo 'make test                   lint, types and every test that this computer can run'
	@echo 'make bench                  beside Ansible, pyinfra, Fabric and other ways to serve: bench/README.md'
	@echo 'make install                .venv with all that `pulumi up` needs'
	@echo 'make preview STACK=name     what `make up` would change (ARGS=--diff shows how)'
	@echo 'make up STACK=name          put the stack live and ask its URL (ARGS=--yes does not ask you)'
	@echo 'make rollback STACK=name    go back to what was live before (RELEASE=id: further back)'
	@echo 'make replace STACK=name MACHINE=web-2   another machine takes the place of this one'
	@echo 'make destroy STACK=name     take it all away'
	@echo 'make docs, make lock        write docs/settings.md; pin the requirements anew'
	@echo 'Without STACK=name, dev is meant.'

install:
	@tools/install.sh program

try: STACK = dev
try: rehearse

rehearse: install
	@$(python) -m rehearsal up "$$STACK"

try-down: install
	@$(python) -m rehearsal down

up preview destroy: install
	@$(python) -m decant.cli $@ "$$STACK" -- $(ARGS)

rollback: install
	@$(python) -m decant.cli $${RELEASE:+"--release=$$RELEASE"} rollback "$$STACK" -- $(ARGS)

replace: install
	@$(python) -m decant.cli --machine="$$MACHINE" replace "$$STACK" -- $(ARGS)

# Without what throwaway machines need, their tests are skipped, and say why. Two processes (tests/conftest.py):
# most of the time is spent waiting for machines.
test: lint
	@$(python) -m rehearsal needs || echo 'The tests that need throwaway machines will be skipped.'
	@$(python) -m pytest -n 2 --dist loadscope

lint:
	@tools/install.sh dev
	@tools/lint.sh

# Which part (ONLY=deploy, load or serving), and whether it is but a trial (QUICK=1).
bench: install
	@$(python) -m bench $(if $(ONLY),--only $(ONLY)) $(if $(QUICK),--quick)

docs: install
	@$(python) -m decant.settings.docs > docs/settings.md

# The app's lock is for the machines' Python; the others for any from 3.11 on.
lock:
	@tools/install.sh dev
	.venv/bin/uv pip compile -q -U --universal --python-version 3.11 --no-header --no-annotate pyproject.toml -o requirements.txt
	.venv/bin/uv pip compile -q -U --universal --python-version 3.11 --no-header --no-annotate --group dev -c requirements.txt -o requirements-dev.txt
	.venv/bin/uv pip compile -q -U --universal --python-version 3.11 --no-header --no-annotate bench/requirements.in -o bench/requirements.txt
	cd app && ../.venv/bin/uv pip compile -q -U --generate-hashes --universal --python-version 3.11 requirements.in -o requirements.txt
