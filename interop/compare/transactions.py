"""Probes of class tx, of channel.flow and of connection.update-secret."""

import pika

from compare.probes import close_of, probe, wait_get


@probe
def a_transaction_with_a_full_queue(connection):
    channel = connection.channel()
    channel.queue_declare("full", exclusive=True, arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
    channel.tx_select()
    for _ in range(3):
        channel.basic_publish("", "full", b"m")
    channel.tx_commit()
    return "committed"


@probe
def a_transaction_with_a_full_queue_and_its_consumer(connection):
    """Who consumes makes room while the commit is carried out."""
    consumer, channel = connection.channel(), connection.channel()
    consumer.queue_declare("full", exclusive=True, arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
    seen = []
    consumer.basic_consume("full", lambda _, __, ___, body: seen.append(body), auto_ack=True)
    channel.tx_select()
    for number in range(3):
        channel.basic_publish("", "full", b"%d" % number)
    channel.tx_commit()
    connection.sleep(0.3)
    return str(seen)


@probe
def a_transaction_that_drops_heads(connection):
    channel = connection.channel()
    channel.queue_declare("dead", exclusive=True)
    channel.queue_declare("short", exclusive=True, arguments={
        "x-max-length": 2, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"})
    channel.basic_publish("", "short", b"before")
    channel.tx_select()
    for number in range(3):
        channel.basic_publish("", "short", b"%d" % number)
    before = channel.queue_declare("short", passive=True).method.message_count
    channel.tx_commit()
    left = [wait_get(connection, channel, "short")[2] for _ in range(2)]
    dropped = [wait_get(connection, channel, "dead")[2] for _ in range(2)]
    return f"{before} {left} {dropped}"


@probe
def a_transaction_that_rejects_and_rolls_back(connection):
    channel = connection.channel()
    channel.queue_declare("dead", exclusive=True)
    channel.queue_declare("held back", exclusive=True, arguments={
        "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"})
    channel.tx_select()
    channel.basic_publish("", "held back", b"m")
    channel.tx_commit()
    tag = wait_get(connection, channel, "held back")[0].delivery_tag
    channel.basic_reject(tag, requeue=False)
    channel.tx_rollback()
    rolled_back = channel.queue_declare("held back", passive=True).method.message_count
    channel.basic_reject(tag, requeue=False)
    channel.tx_commit()
    dead = wait_get(connection, channel, "dead")[2]
    return f"{rolled_back} {dead}"


@probe
def a_transaction_that_settles_twice(connection):
    channel = connection.channel()
    channel.queue_declare("held back", exclusive=True)
    channel.tx_select()
    channel.basic_publish("", "held back", b"m")
    channel.tx_commit()
    tag = wait_get(connection, channel, "held back")[0].delivery_tag
    channel.basic_ack(tag)
    channel.basic_ack(tag)
    channel.tx_commit()
    return "committed"


@probe
def a_new_secret(connection):
    connection.update_secret("new", "why")
    return close_of(connection, lambda channel: None)


def flow(connection, active):
    """What channel.flow is answered with."""
    channel = connection.channel()
    answered = []
    channel._impl._rpc(pika.spec.Channel.Flow(active), lambda frame: answered.append(frame.method.active),
                       [pika.spec.Channel.FlowOk])
    connection.sleep(0.3)
    channel.queue_declare("", exclusive=True)
    return str(answered)


@probe
def flow_on_again(connection):
    return flow(connection, True)


@probe
def flow_off(connection):
    return flow(connection, False)
