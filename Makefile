# The commands of this project. `make` alone lists them.
PYTHON ?= python3
VENV := .venv/bin/python

.PHONY: help run run-all test check pythons canary audit lab app site kit doctor format clean

help:  ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

# KIT=FOLDER or KIT=http://HOST:PORT: a folder that `make kit` made, or the machine that lends one; no index is asked
LENT := $(if $(findstring ://,$(KIT)),$(KIT)/wheels/ PIP_TRUSTED_HOST=$(word 2,$(subst /, ,$(KIT))),$(abspath $(KIT))/wheels)
FROM_KIT := $(if $(KIT),PIP_NO_INDEX=1 PIP_FIND_LINKS=$(LENT))

run:  ## set everything up, run notebooks 00 to 04 here, end with a measured before/after; KIT=FOLDER without a network
	@$(FROM_KIT) $(PYTHON) bootstrap.py run
	@$(FROM_KIT) $(VENV) -m helpers run

run-all:  ## the same with the whole series
	@$(PYTHON) bootstrap.py run
	@$(VENV) -m helpers run --all

test:  ## set everything up, run every check and test
	@$(PYTHON) bootstrap.py test
	@$(PYTHON) bootstrap.py colab
	@$(PYTHON) bootstrap.py site
	@$(VENV) tests/run_all.py

check:  ## what to run while working: format, lint, types, the quick tests
	@$(PYTHON) bootstrap.py test
	@$(VENV) tests/run_all.py --check

pythons:  ## static and unit tests and the notebooks on Python 3.12 and 3.13, each in a clone of its own
	@$(PYTHON) bootstrap.py test
	@$(VENV) tests/pythons.py

canary:  ## the tests with the newest releases of all libraries; names the one that broke something
	@$(PYTHON) bootstrap.py test
	@$(PYTHON) bootstrap.py canary
	@.venv-canary/bin/python -m helpers canary

audit:  ## known vulnerabilities of the tested libraries, where their database can be reached
	@$(PYTHON) bootstrap.py test
	@$(VENV) -m uv tool run pip-audit==2.10.1 --requirement constraints.txt --no-deps --disable-pip

lab:  ## open JupyterLab on the notebooks
	@$(PYTHON) bootstrap.py run
	@$(VENV) -m helpers lab

app:  ## notebook 04's panel alone, in the browser; SHARE=1 lends it to this network
	@$(PYTHON) bootstrap.py run
	@$(VENV) -m helpers app $(if $(SHARE),--share)

site:  ## the newest run's notebooks, the documents and its report as a static site in build/site
	@$(PYTHON) bootstrap.py site
	@.venv-site/bin/python -m helpers site

kit:  ## a folder build/kit with all that a class installs, for rooms without a network
	@$(PYTHON) bootstrap.py run
	@$(VENV) -m helpers kit build/kit

doctor:  ## is this machine ready?
	@$(PYTHON) bootstrap.py run
	@$(VENV) -m helpers doctor

format:  ## format code and notebooks, strip outputs
	@$(PYTHON) bootstrap.py test
	@$(VENV) -m ruff format .
	@$(VENV) -m ruff check --fix .
	@$(VENV) -m nbstripout --keep-id $$(find notebooks -name '*.ipynb')

clean:  ## remove environments and runs
	rm -rf .venv .venv-colab .venv-canary .venv-site build runs
