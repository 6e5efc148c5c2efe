# The usual ways in. Each target is one line; the work is in tools/.
.DEFAULT_GOAL := help
.PHONY: help run test bench fuzz lint format clean

help: ## show this
	@sed -n 's/^\([a-z]*\):.*## /  make \1	/p' $(MAKEFILE_LIST) | expand -t 16

run: ## install what is missing, build, and serve examples/guestbook on http://127.0.0.1:8000
	@tools/bootstrap run

test: ## install what is missing, build, and run all tests
	@tools/bootstrap test

bench: ## install the peers and measure (alone on the machine); ARGS="--quick hello"
	@bench/setup
	@bench/run $(ARGS)

fuzz: ## fuzz every parser for SECONDS in total (60)
	@tools/bootstrap dev
	@tools/fuzz $(or $(SECONDS),60)

lint: ## the checks that need no test; with TIDY=1 clang-tidy too
	@tools/bootstrap dev
	@tools/lint $(if $(TIDY),--tidy)

format: ## format the C sources
	@tools/bootstrap dev
	@tools/format

clean: ## remove what was built (and .venv)
	rm -rf build build-* .venv .venv-* .pytest_cache dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
