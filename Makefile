PYTHON ?= python3
BIN = .venv/bin
RUN = runs/digits

# Freed memory is kept instead of handed back and faulted in again at every step.
MALLOC = MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=4294967296
TRAIN = $(MALLOC) $(BIN)/stitchserve train --family digits --data digits --warmup 100 --beta2 0.98 --clip 1 --fused
ANCHOR = $(TRAIN) --batch 64 --lr 2e-3 --curriculum 0.4 --position-std 0.3 --threads 1

.PHONY: serve test check format digits digits-anchors

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
