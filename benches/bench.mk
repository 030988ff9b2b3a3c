# Included by the Makefile. ARGS go to benches/compare.py, for example: make bench-compare ARGS="--rounds 5 --only confirm"
.PHONY: bench-compare
bench-compare: build
	python3 benches/compare.py $(ARGS)
