"""Which scenario shows which feature, and so which languages have shown it. `run.py --features` prints it."""

# What clients can ask of a broker, and the scenarios that ask for it.
FEATURES = {
    "connection: heartbeats of a second": ("heartbeats",),
    "connection: update-secret": ("update_secret",),
    "connection: blocked, unblocked": ("blocked",),
    "connection, channel: what is wrong, with code and text": ("channel_error",),
    "connection: recovery by the client": ("reconnect",),
    "exchange, queue: declare, bind, unbind, delete, server-named": ("declare_bind",),
    "exchange to exchange, internal, cycles": ("exchange_cycle",),
    "auto-delete, if-unused, if-empty, purge": ("auto_delete",),
    "lazy, transient, ha, no-local, unknown arguments": ("legacy_arguments",),
    "basic: qos, ack one and many": ("consume_prefetch",),
    "basic: qos of the whole channel": ("global_qos",),
    "basic: nack, reject, recover": ("nack_requeue",),
    "basic: return of what is mandatory": ("mandatory_return",),
    "confirm": ("publish_confirms",),
    "tx": ("transactions",),
    "contents: every size, property and type of header": ("large_body", "empty_body", "properties", "header_types"),
    "exchange types: direct, fanout, topic, headers": ("declare_bind",),
    "x-match all, any, all-with-x, any-with-x": ("headers_matching",),
    "x-consistent-hash": ("consistent_hash",),
    "x-random": ("random_exchange",),
    "x-modulus-hash": ("modulus_hash",),
    "x-recent-history": ("recent_history",),
    "alternate-exchange": ("alternate_exchange",),
    "CC, BCC": ("carbon_copies",),
    "length limits, every overflow": ("length_limits",),
    "dead letters: x-death": ("dead_letters",),
    "dead letters at least once": ("at_least_once",),
    "priorities": ("priorities", "priority_order"),
    "single active consumer": ("single_active_consumer",),
    "consumer priorities": ("consumer_priorities",),
    "exclusive consumers and queues": ("exclusive_consumer",),
    "consumer cancel notification": ("cancel_notify",),
    "direct reply-to": ("direct_reply_to",),
    "validated user-id": ("user_id",),
    "firehose": ("firehose",),
    "event exchange": ("event_exchange",),
    "log exchange": ("log_exchange",),
    "policies": ("policies",),
    "operator policies": ("operator_policies",),
    "permissions, of topics too": ("permissions",),
    "limits of vhosts and users": ("limits",),
    "message size, frame_max, channel_max": ("size_limits",),
    "a consumer that stalls holds up nobody": ("slow_consumer",),
    "TTL of messages and queues": ("expiry",),
    "delayed exchange, delivery delay and time": ("delays",),
    "retry with backoff": ("delayed_retry",),
    "schedule of retries, delivery limit": ("retry_until_dead",),
    "amq.settle": ("settle",),
    "consumer timeout, visibility timeout": ("consumer_timeout",),
    "quorum queues": ("quorum_queue",),
}
LANGUAGES_WANTED = 2


def shown(clients):
    """For each feature the languages whose clients have a scenario of it."""
    found = {}
    for feature, scenarios in FEATURES.items():
        having = [client.language for client in clients if any(it in client.scenarios for it in scenarios)]
        found[feature] = list(dict.fromkeys(having))
    return found


def lonely(clients):
    """Features that fewer languages show than we want."""
    return [feature for feature, languages in shown(clients).items() if len(languages) < LANGUAGES_WANTED]


def table(clients):
    """A line per feature."""
    rows = shown(clients)
    width = max(map(len, rows))
    return "\n".join(f"{feature.ljust(width)}  {', '.join(languages)}" for feature, languages in rows.items())
