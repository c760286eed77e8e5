# Every command of the project. `make` alone lists them.
STACK ?= dev
PYTHON ?= python3
# Recipes get these by the environment, so that the shell never interprets what is in them.
export PYTHON STACK RELEASE MACHINE APP
export CARD
export MARKDOWN KEY PR TITLE BODY
export ADDRESS MINUTES FORCE
export COMMAND SOURCE LINES
export ROLE AWS_ROLE REPOSITORY STACKS APPROVE REVIEWS REGION BUCKET PROVIDER SUBJECT MAIN STATE PRINT YES
python := .venv/bin/python

.PHONY: ci-init ci-login
.PHONY: help try rehearse try-down inspect install check-account up preview destroy rollback replace test thorough lint bench docs lock
.PHONY: drift
.PHONY: ci-comment ci-fork ci-stale ci-issue ci-issue-done
.PHONY: ssh-open ssh-close unlock ci-host-name
.PHONY: review-up review-down review-reap
.PHONY: status ps logs releases run console env open ssh

help:
	@echo 'make try                    rehearse the stack dev on a throwaway machine of this computer; ends with a URL'
	@echo 'make try-down               remove that machine'
	@echo 'make rehearse STACK=name    rehearse another stack (CARD=folder keeps a card with a screenshot of its front page)'
	@echo 'make inspect STACK=name     show what is understood of the app, or refused, without a machine (APP=folder: of another)'
	@echo 'make test                   lint, types and every test that this computer can run'
	@echo 'make lint                   style and types alone'
	@echo 'make thorough               the slow tests that make test leaves out, half an hour'
	@echo 'make bench                  measure Decant beside other tools and other ways to serve: bench/README.md'
	@echo 'make install                make .venv with all that `pulumi up` needs'
	@echo 'make check-account STACK=name   ask the cloud whether your account can make the stack, and what it costs'
	@echo 'make preview STACK=name     say what `make up` would change (ARGS=--diff shows how, MARKDOWN=file writes it)'
	@echo 'make up STACK=name          put the stack live and check its URL (ARGS=--yes does not ask you)'
	@echo 'make drift STACK=name       compare what runs with the state, and ask whether the stack can still be deployed'
	@echo 'make rollback STACK=name    go back to the release before (RELEASE=id: to an older one)'
	@echo 'make replace STACK=name MACHINE=web-2   replace a machine by a new one'
	@echo 'make destroy STACK=name     remove everything'
	@echo 'make ci-comment STACK=name MARKDOWN=file   in CI: comment on the pull request, or edit the comment (KEY=text: another one)'
	@echo 'make ci-fork                in CI: say what the rehearsal of a pull request from a fork came to'
	@echo 'make ci-stale STACK=name    in CI: mark the comments of open pull requests, after the target branch has changed'
	@echo 'make ci-issue TITLE=text BODY=file   in CI: open an issue, or edit the open one; make ci-issue-done TITLE=text closes it'
	@echo 'make unlock STACK=name      let the stack go where what holds it is over (FORCE=yes: because you know that it is)'
	@echo 'make ssh-open STACK=name    let this computer use SSH to the machines for an hour (MINUTES=90: for longer)'
	@echo 'make ssh-close STACK=name   take that back, and what others left open past its time'
	@echo 'make ci-host-name           name this runner by its run, so that a later one knows whose lock it finds'
	@echo 'make ci-init                set up previews in pull requests and deploys from CI: docs/ci.md'
	@echo 'make ci-login               in CI: get the credentials of the role in AWS_ROLE for an hour'
	@echo 'make review-up PR=number    make or update the stack of a pull request (MARKDOWN=file writes a comment)'
	@echo 'make review-down PR=number  remove it'
	@echo 'make review-reap            remove the stacks of pull requests that have expired'
	@echo 'make status STACK=name      what runs on each machine, since when, and what needs attention: docs/running.md'
	@echo 'make ps STACK=name          the processes of releases; make releases: what one can go back to; make env: names of variables'
	@echo 'make logs STACK=name        what the app wrote (FOLLOW=yes, RELEASE=id, MACHINE=web-2, LINES=500, SOURCE=access or error)'
	@echo "make run STACK=name COMMAND='flask db current'   run a command in the live release; make console: a flask shell there"
	@echo 'make open STACK=name        the URL; make ssh STACK=name MACHINE=web-2: log in to a machine'
	@echo 'make docs                   write docs/settings.md and the module map in docs/architecture.md'
	@echo 'make lock                   update the pinned packages'
	@echo 'Without STACK=name, the stack is dev.'

install:
	@tools/install.sh program

try: STACK = dev
try: rehearse

rehearse: install
	@$(python) -m rehearsal up $${CARD:+"--card=$$CARD"} "$$STACK"

try-down: install
	@$(python) -m rehearsal down

inspect: install
	@$(python) -m rehearsal inspect $${APP:+"--app=$$APP"} "$$STACK"

# MARKDOWN=file gets what the preview says, for a comment in a pull request.
preview: install
	@$(python) -m decant.cli $${MARKDOWN:+"--markdown=$$MARKDOWN"} $@ "$$STACK" -- $(ARGS)

destroy: install
	@$(python) -m decant.cli $@ "$$STACK" -- $(ARGS)

# CHECK=no leaves out the check of the account before the first up.
up: install
	@$(python) -m decant.cli $(if $(filter no,$(CHECK)),--no-check) $@ "$$STACK" -- $(ARGS)

# FOR=preview asks for what a preview needs alone. ROLE=arn asks what a role may do, with your own credentials.
check-account: install
	@$(python) -m decant.cli $(if $(filter preview,$(FOR)),--read-only) $${ROLE:+"--role=$$ROLE"} $@ "$$STACK"

# Setting CI up, and logging in there: docs/ci.md.
ci-init: install
	@$(python) -m decant.ci.init

ci-login: install
	@$(python) -m decant.ci.login

rollback: install
	@$(python) -m decant.cli $${RELEASE:+"--release=$$RELEASE"} rollback "$$STACK" -- $(ARGS)

replace: install
	@$(python) -m decant.cli --machine="$$MACHINE" replace "$$STACK" -- $(ARGS)

# What CI runs besides, each night: docs/ci.md. MARKDOWN=file gets the report as Markdown.
drift: install
	@$(python) -m decant.cli $(if $(filter preview,$(FOR)),--read-only) $${MARKDOWN:+"--markdown=$$MARKDOWN"} $@ "$$STACK"

# For workflows on GitHub and GitLab.
ci-comment: install
	@$(python) -m decant.ci comment "--stack=$$STACK" "--key=$$KEY" "--markdown=$$MARKDOWN" "--pr=$$PR"

ci-fork: install
	@$(python) -m decant.ci fork

ci-stale: install
	@$(python) -m decant.ci stale "--stack=$$STACK"

ci-issue: install
	@$(python) -m decant.ci issue "--title=$$TITLE" "--body=$$BODY"

ci-issue-done: install
	@$(python) -m decant.ci issue-done "--title=$$TITLE"

# SSH for one run, and locks: docs/state.md. ADDRESS, MINUTES and FORCE reach the program by the environment.
ssh-open ssh-close unlock: install
	@$(python) -m decant.cli $@ "$$STACK"

ci-host-name: install
	@$(python) -m decant.ci.runs

# Stacks for pull requests.
review-up review-down: install
	@$(python) -m decant.cli.review $(@:review-%=%) --pull-request "$$PR" --markdown "$$MARKDOWN"

review-reap: install
	@$(python) -m decant.cli.review reap

# The verbs on the running site: docs/running.md. `fab --list` has the same ones.
status ps logs releases env run console open ssh: install
	@$(python) -m decant.verbs $@ "$$STACK" "--machine=$$MACHINE" "--release=$$RELEASE" "--command=$$COMMAND" \
		$${SOURCE:+"--source=$$SOURCE"} $${LINES:+"--lines=$$LINES"} $(if $(filter yes,$(FOLLOW)),--follow) $(if $(filter yes,$(JSON)),--json)

# Tests that need throwaway machines are skipped where these cannot run, and say why. Two processes (tests/conftest.py),
# because most of the time is spent waiting for machines.
test: lint
	@$(python) -m rehearsal needs || echo 'The tests that need throwaway machines will be skipped.'
	@$(python) -m pytest -n 2 --dist loadscope

# The slow points of the fault matrix, and slow tests of the engine. CI runs them by itself after a change of the code that they are about.
thorough: lint
	@$(python) -m pytest -n 2 --dist loadscope -m thorough tests/hosts tests/engine
	@$(python) -m tests.support.thorough

lint:
	@tools/install.sh dev
	@tools/lint.sh

# ONLY=deploy, load or serving measures one part. QUICK=1 is a trial that keeps no figures.
bench: install
	@$(python) -m bench $(if $(ONLY),--only $(ONLY)) $(if $(QUICK),--quick)

docs: install
	@$(python) -m decant.settings.docs > docs/settings.md
	@$(python) tools/module_map.py

# Each file of pinned packages is for every Python from 3.11 on; the app's and the ACME client's have hashes as well.
lock:
	@tools/install.sh dev
	.venv/bin/uv pip compile -q -U --generate-hashes --universal --python-version 3.11 --no-header --no-annotate pyproject.toml -o requirements.txt
	.venv/bin/uv pip compile -q -U --generate-hashes --universal --python-version 3.11 --no-header --no-annotate --group dev -c requirements.txt -o requirements-dev.txt
	.venv/bin/uv pip compile -q -U --universal --python-version 3.11 --no-header --no-annotate bench/requirements.in -o bench/requirements.txt
	.venv/bin/uv pip compile -q -U --generate-hashes --universal --python-version 3.11 --no-header --no-annotate tools/certbot-requirements.in -o infra/decant/host/acme/certbot-requirements.txt
	cd app && ../.venv/bin/uv pip compile -q -U --generate-hashes --universal --python-version 3.11 requirements.in -o requirements.txt
