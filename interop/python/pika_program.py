"""All scenarios with pika: what run.py starts."""

import pika_limits
import pika_operated
import pika_queues
import pika_routing
import pika_scenarios
import pika_time
from scenarios import main

MODULES = (pika_scenarios, pika_routing, pika_queues, pika_limits, pika_operated, pika_time)
SCENARIOS = [scenario for module in MODULES for scenario in module.SCENARIOS]

if __name__ == "__main__":
    main(SCENARIOS, pika_scenarios.within_time)
