# Everything needs Python 3.11 or newer and make; the rest is fetched into .venv and ~/.cache.
# Settings are variables: make demo SECONDS=60 STREAM=agrawal RATE=500

PYTHON ?= python3
VENV := .venv/bin
REQUIREMENTS := $(filter-out benchmarks/%,$(wildcard */requirements.txt))

.DEFAULT_GOAL := help
.PHONY: plot-late-labels bench-adaptation help setup demo run topic kafka test test-faults test-compose test-browser screenshots test-monitoring soak soak-labels fuzz bench-late-labels bench-sparse-labels bench-model-load bench-throughput check lock

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

setup: .venv/stamp ## make the virtual environment .venv

demo: setup ## run everything on a local Kafka; SECONDS, STREAM, LABEL, POSITIVE, RATE, LABEL_DELAY
	@exec $(VENV)/python -m local.demo

run: setup ## run everything on a local Kafka until Ctrl-C, then go on, data under .run/; PORT, STREAM, …
	@exec $(VENV)/python -m local.run $(if $(PORT),--port "$(PORT)")

topic: setup ## show a topic; NAME, FROM (beginning or end), COUNT
	@exec $(VENV)/python -m local.topic $(if $(NAME),"$(NAME)") \
	    $(if $(FROM),--from "$(FROM)") $(if $(COUNT),--count "$(COUNT)")

kafka: setup ## run a local Kafka until Ctrl-C, data under .kafka/; PORT (9092)
	@exec $(VENV)/python -m local.kafka $(if $(PORT),--port "$(PORT)")

# Tests run beside each other on all cores: more threads in each would wait for one another.
# Neighbours stay in one process, and share the broker of their file.
test test-faults: export OMP_NUM_THREADS = 1

test: setup ## unit and integration tests, on a local Kafka or KAFKA_BOOTSTRAP_SERVERS
	$(VENV)/python -m pytest -n 4 --dist worksteal tests/unit tests/integration

test-faults: setup ## each fault caused on real brokers under load, 15 minutes
	$(VENV)/python -m pytest -n 3 --dist worksteal tests/faults

test-browser: setup ## the page in a real browser beside the services of the demo, three minutes
	@[ "$$CHROMIUM" ] || command -v chromium google-chrome >/dev/null || \
	    { echo "test-browser: no chromium here; apt-get install chromium, or set CHROMIUM"; exit 1; }
	@$(VENV)/python -m pip install -q -r tests/browser/requirements.txt
	$(VENV)/python -m pytest tests/browser

screenshots: setup ## pictures of the page for the README: docs/page-light.png, docs/page-dark.png
	@$(VENV)/python -m pip install -q -r tests/browser/requirements.txt
	@$(VENV)/python -m tests.browser.screenshots

test-compose: setup ## the compose files on a real Docker engine, 12 minutes
	@docker info >/dev/null 2>&1 || { echo "test-compose: no Docker engine answers"; exit 1; }
	$(VENV)/python -m pytest tests/compose

test-monitoring: setup ## the alerts, and what a real Prometheus reads, with promtool, half a minute
	@{ promtool --version && prometheus --version; } >/dev/null 2>&1 || { echo "test-monitoring:" \
	    "no prometheus or promtool; both are in Debian's package prometheus (apt-get install" \
	    "prometheus) and in the archive of the Prometheus project"; exit 1; }
	$(VENV)/python -m pytest tests/monitoring

soak: setup ## random faults under load, then a check of everything; SECONDS, SEED, RATE
	@$(VENV)/python -m tests.soak

soak-labels: setup ## 10 million late labels and 20 kills, over two hours, resumable; LEGS, RECORDS
	@$(VENV)/python -m tests.soak.labels

bench-late-labels: setup ## throughput with late labels beside labels inside, five minutes
	@$(VENV)/python -m benchmarks.late_labels

bench-sparse-labels: setup ## what a label now and then adds to the time until a prediction, a minute
	@$(VENV)/python -m benchmarks.sparse_labels

plot-late-labels: setup ## what a delay of the labels does to adaptation: docs/late-labels.svg, a minute
	@$(VENV)/python -m benchmarks.late_label_plot docs/late-labels.svg

bench-adaptation: setup ## how well models adapt, hours, resumable; STREAMS, LEARNERS, SEEDS, RATE, SIDE_BY_SIDE, RECORDS
	@$(VENV)/python -m pip install -q -r benchmarks/requirements.txt
	@$(VENV)/python -m benchmarks.adaptation $(if $(STREAMS),--streams "$(STREAMS)") \
	    $(if $(LEARNERS),--learners "$(LEARNERS)") $(if $(SEEDS),--seeds "$(SEEDS)") \
	    $(if $(RATE),--rate "$(RATE)") $(if $(SIDE_BY_SIDE),--side-by-side "$(SIDE_BY_SIDE)") \
	    $(if $(RECORDS),--records "$(RECORDS)")

fuzz: setup ## garbage for every decoder that reads a topic; SECONDS (600)
	@$(VENV)/python -m pip install -q -r tests/fuzz/requirements.txt
	@$(VENV)/python -m tests.fuzz

bench-model-load: setup ## how predictions are delayed while a model of 50 MB is loaded, a minute
	@$(VENV)/python -m benchmarks.model_load_latency

bench-throughput: setup ## throughput here and in the commit BEFORE, three minutes
	@$(VENV)/python -m benchmarks.throughput $(if $(BEFORE),"$(BEFORE)")

check: setup ## formatting, lint, types, import rules, the examples of docstrings
	$(VENV)/ruff format --check .
	$(VENV)/ruff check .
	$(VENV)/mypy
	$(VENV)/python -m pytest --doctest-modules tests/unit/test_layout.py \
		stream estimators quality datagenerator modelgenerator predictor dashboard local

lock: setup ## pin what */requirements.txt ask for in requirements.lock
	$(VENV)/python -m pip install -q uv
	$(VENV)/uv pip compile -q --universal --python-version 3.11 --no-header \
	    -o requirements.lock $(REQUIREMENTS)

.venv/stamp: $(REQUIREMENTS) requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	    "$(PYTHON) is Python %d.%d; 3.11 or newer is needed (make PYTHON=...)" % sys.version_info[:2])'
	$(PYTHON) -m venv .venv
	$(VENV)/python -m pip install $(REQUIREMENTS:%=-r %) -c requirements.lock
	@touch $@
