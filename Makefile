# The commands of this project. `make` alone lists them.
PYTHON ?= python3
VENV := .venv/bin/python

.PHONY: help run test lab app doctor format clean

help:  ## list the commands
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

run:  ## set everything up, run the whole series here, end with a measured before/after
	@$(PYTHON) helpers/bootstrap.py run
	@$(VENV) -m helpers run

test:  ## set everything up, run every check and test
	@$(PYTHON) helpers/bootstrap.py test
	@$(PYTHON) helpers/bootstrap.py colab
	@$(VENV) tests/run_all.py

lab:  ## open JupyterLab on the notebooks
	@$(PYTHON) helpers/bootstrap.py run
	@$(VENV) -m helpers lab

app:  ## notebook 04's panel alone, in the browser
	@$(PYTHON) helpers/bootstrap.py run
	@$(VENV) -m helpers app

doctor:  ## is this machine ready?
	@$(PYTHON) helpers/bootstrap.py run
	@$(VENV) -m helpers doctor

format:  ## format code and notebooks, strip outputs
	@$(PYTHON) helpers/bootstrap.py test
	@$(VENV) -m ruff format .
	@$(VENV) -m ruff check --fix .
	@$(VENV) -m nbstripout --keep-id notebooks/*.ipynb notebooks/solutions/*.ipynb

clean:  ## remove environments and runs
	rm -rf .venv .venv-colab runs
