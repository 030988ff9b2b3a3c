# Included by the Makefile. ARGS go to benches/compare.py, for example: make bench-compare ARGS="--rounds 5 --only confirm"
.PHONY: bench-compare
bench-compare: build ## Leveret and RabbitMQ side by side (ARGS=... for flags)
	python3 benches/compare.py $(ARGS)

.PHONY: bench-depth
bench-depth: build ## Deep queues, many queues and restarts beside RabbitMQ (ARGS=... for flags)
	python3 benches/depth.py $(ARGS)
