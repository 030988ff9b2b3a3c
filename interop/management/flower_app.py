"""A Celery application without tasks, for Flower to watch."""

from celery import Celery

app = Celery("flower_app")
app.conf.broker_connection_retry_on_startup = True
