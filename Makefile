# Everything else is a Python command; this one has to be short enough to pass on.
PYTHON ?= python3
OUT ?= gpu-report

.PHONY: gpu
gpu:
	$(PYTHON) benchmarks/gpu.py --out $(OUT)
