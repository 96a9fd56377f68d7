PYTHON ?= python3
BIN = .venv/bin
RUN = runs/digits

# Freed memory is kept instead of handed back and faulted in again at every step.
MALLOC = MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=4294967296
TRAIN = $(MALLOC) $(BIN)/stitchserve train --family digits --data digits --warmup 100 --beta2 0.98 --clip 1 --fused
ANCHOR = $(TRAIN) --batch 64 --lr 2e-3 --curriculum 0.4 --position-std 0.3 --threads 1

.PHONY: serve test check format lock audit sbom digits digits-anchors

serve: .venv/.done
	$(BIN)/stitchserve serve

test: .venv/.done
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

check: .venv/.done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/.done
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# What the image is made of: every version and hash, for Linux and any Python from 3.11 on.
lock: .venv/.supply
	$(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --upgrade --quiet \
		--no-emit-index-url --no-header --no-annotate --output-file requirements.lock

# Known vulnerabilities in it; fails where a package cannot be looked up.
audit: .venv/.supply
	$(BIN)/pip-audit --requirement requirements.lock --require-hashes --disable-pip --strict --progress-spinner off

sbom: .venv/.supply
	mkdir -p build
	$(BIN)/cyclonedx-py requirements requirements.lock --pyproject pyproject.toml --output-reproducible \
		--output-file build/sbom.json

.venv/.supply: .venv/.done
	$(BIN)/pip install --editable '.[supply]'
	touch $@

.venv/.done: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --editable '.[dev]'
	touch $@

# The shipped network from nothing: anchors side by side on two cores, joined, trained together, measured.
digits: .venv/.done
	$(MAKE) -j2 digits-anchors
	$(TRAIN) --out $(RUN)/joint --batch 32 --steps 16000 --lr 1.5e-3 --threads 2 --init-images 4000 \
		--stitches all,17-32,0,1x3,2x18 \
		--anchors $(RUN)/small/model.safetensors,$(RUN)/medium/model.safetensors,$(RUN)/large/model.safetensors
	cp $(RUN)/joint/model.safetensors checkpoints/digits.safetensors
	$(MALLOC) $(BIN)/stitchserve evaluate --family digits --data digits --split test \
		--journal $(RUN)/evaluation.jsonl --table lookup_tables/digits
	$(BIN)/python -m stitching.digits checkpoints/samples

digits-anchors: $(RUN)/large/model.safetensors $(RUN)/medium/model.safetensors

$(RUN)/large/model.safetensors: | .venv/.done
	$(ANCHOR) --stitches 2 --steps 1600 --out $(RUN)/large

$(RUN)/medium/model.safetensors: $(RUN)/small/model.safetensors
	$(ANCHOR) --stitches 1 --steps 2000 --out $(RUN)/medium

$(RUN)/small/model.safetensors: | .venv/.done
	$(ANCHOR) --stitches 0 --steps 2000 --out $(RUN)/small
