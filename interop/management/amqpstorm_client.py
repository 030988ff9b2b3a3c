"""Calls everything that amqpstorm's management client offers; ends with an exception when something is not as it should be."""

import sys

from amqpstorm.management import ApiError, ManagementApi

NAME = "storm"


def main(url):
    api = ManagementApi(url, "guest", "guest", timeout=20)
    assert api.aliveness_test("/")["status"] == "ok"
    assert api.overview()["rabbitmq_version"]
    node = api.nodes()[0]["name"]
    assert api.node(node)["running"]
    assert api.whoami()["name"] == "guest"

    api.virtual_host.create(NAME)
    assert api.virtual_host.get(NAME)["name"] == NAME
    assert NAME in [row["name"] for row in api.virtual_host.list()]
    assert api.user.create("stormy", "secret", tags="monitoring") in (None, "", {})
    assert api.user.get("stormy")["name"] == "stormy"
    assert "stormy" in [row["name"] for row in api.user.list()]
    api.user.set_permission("stormy", NAME, configure_regex=".*", write_regex=".*", read_regex=".*")
    assert api.user.get_permission("stormy", NAME)["configure"] == ".*"
    assert len(api.user.get_permissions("stormy")) == 1
    assert len(api.virtual_host.get_permissions(NAME)) >= 1
    api.user.delete_permission("stormy", NAME)
    api.user.delete("stormy")
    api.virtual_host.delete(NAME)

    api.exchange.declare(NAME, exchange_type="topic", durable=True)
    assert api.exchange.get(NAME)["type"] == "topic"
    assert NAME in [row["name"] for row in api.exchange.list()]
    assert NAME in [row["name"] for row in api.exchange.list(show_all=True)]
    api.queue.declare(NAME, durable=True, arguments={"x-max-length": 10})
    assert api.queue.get(NAME)["durable"] is True
    assert NAME in [row["name"] for row in api.queue.list(name="sto", use_regex=False)]
    api.queue.bind(queue=NAME, exchange=NAME, routing_key="a.#", arguments={})
    keys = [row["properties_key"] for row in api.queue.bindings(NAME) if row["source"] == NAME]
    assert keys == ["a.%23"], keys
    assert api.exchange.bindings(NAME) is not None
    assert api.basic.publish("hello", "a.b", exchange=NAME, properties={"headers": {"h": 1}})["routed"] is True
    message = api.basic.get(NAME, requeue=True)[0]
    assert message.body == "hello" and message.properties["headers"] == {"h": 1}, message
    assert api.basic.get(NAME, requeue=False, to_dict=True)[0]["payload"] == "hello"
    api.queue.purge(NAME)
    api.queue.unbind(queue=NAME, exchange=NAME, routing_key="a.#", properties_key=keys[0])
    api.queue.delete(NAME)
    api.exchange.delete(NAME)
    try:
        api.queue.get(NAME)
        raise AssertionError("a deleted queue is still there")
    except ApiError as gone:
        assert gone.error_code == 404, gone

    assert isinstance(api.connection.list(), list)
    assert isinstance(api.channel.list(), list)
    for row in api.connection.list():
        assert api.connection.get(row["name"])["name"] == row["name"]
    for row in api.channel.list():
        assert api.channel.get(row["name"])["name"] == row["name"]
    assert isinstance(api.healthchecks.get(), dict)


if __name__ == "__main__":
    main(sys.argv[1])
