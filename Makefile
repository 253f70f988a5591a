# make demo     install, train ∞-former and Transformer-XL on the sorting task, and report (minutes; SCALE=smoke: seconds)
# make test     install, run the tests (eleven minutes on two cores), but for those of make slow
# make quick    those that are quick alone: no killed processes, full disks, paper's sizes, rows of every experiment
# make fuzz     the tests against mutated input, with thousands of cases each (minutes)
# make slow     the tests that take longest, the committed runs checked, and make torture: before an issue is closed
# make torture  kill runs at 20 random moments a task: each must end the same, to the byte (minutes)
# make check    install, lint, format check, types
# make coverage all tests, and which lines and branches they run
# make mutants  the memory's code changed in a thousand places: do its tests see it? (minutes)
# make proof    this checkout and another commit, BASE=…, compute the same to the bit (two times 20 minutes; PROOF=--quick: 2)
# make dist     sdist and wheel in dist/, and the wheel's first run in an environment of its own

PYTHON ?= python3
SCALE ?= laptop
BASE ?= HEAD
BIN := .venv/bin
INSTALLED := .venv/installed
WANTED := infty needs Python 3.11 or newer, as with: make PYTHON=python3.11
LACKING := this Python makes no virtual environments; on Debian and Ubuntu: apt install python3-venv

TESTS := $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: demo test quick slow fuzz torture check coverage mutants proof dist clean

demo: $(INSTALLED)
	$(BIN)/infty train sort --model infty --case x8 --scale $(SCALE)
	$(BIN)/infty train sort --model transformer-xl --case x8 --scale $(SCALE)
	$(BIN)/infty eval sort --model infty --case x8 --scale $(SCALE)
	$(BIN)/infty eval sort --model transformer-xl --case x8 --scale $(SCALE)
	$(BIN)/infty report

test: $(INSTALLED)
	$(TESTS) -m "not slower"

quick: $(INSTALLED)
	$(TESTS) -m "not slow and not slower"

slow: $(INSTALLED) torture
	$(TESTS) -m slower
	$(BIN)/infty report experiments/results/laptop --check

fuzz: $(INSTALLED)
	$(BIN)/pytest -n 2 -m fuzz --hypothesis-profile thorough --timeout 3600

torture: $(INSTALLED)
	$(BIN)/python -m tests.reliability.torture

check: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright

coverage: $(INSTALLED)
	rm -f .coverage*
	$(TESTS) --cov --cov-report= --timeout 900
	$(BIN)/coverage report --skip-covered --sort=cover
	$(BIN)/coverage json --quiet --pretty-print -o coverage.json
	@grep -E '"percent_(statements|branches)_covered"' coverage.json | tail -2

mutants: $(INSTALLED)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[mutation]'
	$(BIN)/python -m tests.mutants

proof: $(INSTALLED)
	-git worktree remove --force build/base 2>/dev/null
	git worktree add --detach build/base $(BASE)
	$(BIN)/python -m tests.proof $(PROOF) --tree build/base --out build/base.json
	git worktree remove --force build/base
	$(BIN)/python -m tests.proof $(PROOF) --out build/here.json
	$(BIN)/python -m tests.proof --compare build/base.json build/here.json

dist: $(INSTALLED)
	rm -rf dist
	$(BIN)/pip install --quiet --constraint constraints.txt build
	PIP_CONSTRAINT= $(BIN)/python -m build --outdir dist .
	$(PYTHON) -m venv dist/venv
	dist/venv/bin/pip install --quiet --constraint constraints.txt dist/*.whl
	cd dist && venv/bin/infty train sort --scale smoke

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON): $(WANTED)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON): $(LACKING)"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis build dist mutants .coverage* coverage.json
