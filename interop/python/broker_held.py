"""A Celery task whose countdown, ETA and retries wait in Leveret: in the task's own queue, durably, and not in a worker.

    app = Celery("shop", task_cls="broker_held:BrokerHeldTask")

replaces Celery's ladder of 28 delay queues (`broker_native_delayed_delivery_queue_type`), and works on every type of queue.
"""

from datetime import datetime, timezone

from celery import Task

DELAY = "x-opt-delivery-delay"  # milliseconds


class BrokerHeldTask(Task):
    """Sends a delay to the broker instead of an ETA to the worker."""

    abstract = True

    def apply_async(self, args=None, kwargs=None, *more, countdown=None, eta=None, headers=None, **options):
        """As Celery's own; retries, also those of `autoretry_for`, come through here as well."""
        if eta is not None:
            eta = datetime.fromisoformat(eta) if isinstance(eta, str) else eta
            countdown = (eta - datetime.now(eta.tzinfo or timezone.utc)).total_seconds()
        headers = {name: value for name, value in (headers or {}).items() if name != DELAY}
        if countdown is not None and countdown > 0:
            headers[DELAY] = int(countdown * 1000)
        return super().apply_async(args, kwargs, *more, headers=headers, **options)
