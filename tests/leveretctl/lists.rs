//! Lists, and what is done to queues and connections.

use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties, ExchangeKind,
    options::{
        BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ExchangeDeclareOptions, QueueBindOptions,
        QueueDeclareOptions,
    },
    types::{AMQPValue, FieldTable},
};
use tokio::runtime::Runtime;

use crate::{broker::Broker, script::check};

/// A connection with queues, bindings, messages and a consumer.
struct Scene {
    runtime: Runtime,
    connection: Connection,
    _channel: Channel,
    /// Dropped, it would cancel.
    _consumer: lapin::Consumer,
}

fn scene(broker: &Broker) -> Scene {
    let runtime = Runtime::new().unwrap();
    let (connection, channel, consumer) = runtime.block_on(async {
        let connection = Connection::connect(&broker.uri(), ConnectionProperties::default())
            .await
            .unwrap();
        let channel = connection.create_channel().await.unwrap();
        let durable = QueueDeclareOptions {
            durable: true,
            ..QueueDeclareOptions::default()
        };
        let mut arguments = FieldTable::default();
        arguments.insert("x-max-length".into(), AMQPValue::LongInt(10));
        arguments.insert(
            "x-dead-letter-exchange".into(),
            AMQPValue::LongString("dlx".into()),
        );
        channel
            .queue_declare("q1".into(), durable, arguments)
            .await
            .unwrap();
        channel
            .queue_declare("full".into(), durable, FieldTable::default())
            .await
            .unwrap();
        let options = ExchangeDeclareOptions {
            durable: true,
            ..ExchangeDeclareOptions::default()
        };
        channel
            .exchange_declare("ex".into(), ExchangeKind::Headers, options, FieldTable::default())
            .await
            .unwrap();
        let bind = QueueBindOptions::default();
        channel
            .queue_bind(
                "q1".into(),
                "amq.topic".into(),
                "a.b".into(),
                bind,
                FieldTable::default(),
            )
            .await
            .unwrap();
        channel.confirm_select(Default::default()).await.unwrap();
        for _ in 0..3 {
            let properties = BasicProperties::default().with_delivery_mode(2);
            let confirm = channel
                .basic_publish(
                    "".into(),
                    "full".into(),
                    BasicPublishOptions::default(),
                    b"x",
                    properties,
                )
                .await
                .unwrap();
            confirm.await.unwrap();
        }
        channel.basic_qos(7, BasicQosOptions::default()).await.unwrap();
        let consumer = channel
            .basic_consume(
                "q1".into(),
                "tag1".into(),
                BasicConsumeOptions::default(),
                FieldTable::default(),
            )
            .await
            .unwrap();
        (connection, channel, consumer)
    });
    Scene {
        runtime,
        connection,
        _channel: channel,
        _consumer: consumer,
    }
}

#[test]
fn queues_exchanges_and_bindings() {
    let broker = Broker::start();
    let _scene = scene(&broker);
    check(
        &broker,
        r#"
        $ list_queues
        Timeout: 60.0 seconds ...
        Listing queues for vhost / ...
        name	messages
        full	3
        q1	0
        $ list_queues -t 5 -s
        full	3
        q1	0
        $ list_queues name,messages consumers arguments -q
        name	messages	consumers	arguments
        full	3	0	[]
        q1	0	1	[{"x-dead-letter-exchange","dlx"},{"x-max-length",10}]
        $ list_queues name durable auto_delete arguments policy exclusive messages_ready messages_unacknowledged consumers state type --formatter json
        [
        {"name":"full","durable":true,"auto_delete":false,"arguments":[],"policy":"","exclusive":false,"messages_ready":3,"messages_unacknowledged":0,"consumers":0,"state":"running","type":"classic"}
        ,{"name":"q1","durable":true,"auto_delete":false,"arguments":[["x-dead-letter-exchange","longstr","dlx"],["x-max-length","signedint",10]],"policy":"","exclusive":false,"messages_ready":0,"messages_unacknowledged":0,"consumers":1,"state":"running","type":"classic"}
        ]
        $ list_queues name colour
        ! 64
        > Error (argument validation): Info key(s) colour are not supported
        > Arguments given:
        > 	list_queues name colour
        > ...
        $ list_queues -p nothere
        Timeout: 60.0 seconds ...
        Listing queues for vhost nothere ...
        $ list_queues --formatter csv name messages
        "name","messages"
        "full","3"
        "q1","0"
        $ list_queues --formatter pretty_table name messages -q
        ┌──────┬──────────┐
        │ name │ messages │
        ├──────┼──────────┤
        │ full │ 3        │
        ├──────┼──────────┤
        │ q1   │ 0        │
        └──────┴──────────┘
        $ list_queues --offline -q
        $ rabbitmq-diagnostics -q list_queues slave_pids name
        slave_pids	name
        |	full
        |	q1
        $ list_exchanges -q name type durable auto_delete internal arguments policy
        name	type	durable	auto_delete	internal	arguments	policy
        |	direct	true	false	false	[]	
        amq.direct	direct	true	false	false	[]	
        amq.fanout	fanout	true	false	false	[]	
        amq.headers	headers	true	false	false	[]	
        amq.match	headers	true	false	false	[]	
        amq.rabbitmq.trace	topic	true	false	true	[]	
        amq.topic	topic	true	false	false	[]	
        ex	headers	true	false	false	[]	
        $ list_bindings
        Listing bindings for vhost /...
        source_name	source_kind	destination_name	destination_kind	routing_key	arguments
        |	exchange	full	queue	full	[]
        |	exchange	q1	queue	q1	[]
        amq.topic	exchange	q1	queue	a.b	[]
        $ list_bindings source_name routing_key --formatter json
        [
        {"source_name":"","routing_key":"full"}
        ,{"source_name":"","routing_key":"q1"}
        ,{"source_name":"amq.topic","routing_key":"a.b"}
        ]
        $ list_unresponsive_queues
        Listing unresponsive queues for vhost / ...
        "#,
    );
}

#[test]
fn connections_channels_and_consumers() {
    let broker = Broker::start();
    let scene = scene(&broker);
    check(
        &broker,
        r#"
        $ list_connections user peer_host state channels protocol auth_mechanism vhost ssl
        Listing connections ...
        user	peer_host	state	channels	protocol	auth_mechanism	vhost	ssl
        guest	127.0.0.1	running	1	{0,9,1}	PLAIN	/	false
        $ list_connections user state protocol --formatter json
        [
        {"user":"guest","state":"running","protocol":[0,9,1]}
        ]
        $ list_channels number user vhost transactional confirm consumer_count messages_unacknowledged messages_uncommitted acks_uncommitted messages_unconfirmed prefetch_count -q
        number	user	vhost	transactional	confirm	consumer_count	messages_unacknowledged	messages_uncommitted	acks_uncommitted	messages_unconfirmed	prefetch_count
        1	guest	/	false	true	1	0	0	0	0	7
        $ list_consumers queue_name consumer_tag ack_required prefetch_count active arguments
        Listing consumers in vhost / ...
        queue_name	consumer_tag	ack_required	prefetch_count	active	arguments
        q1	tag1	true	7	true	[]
        $ close_connection '<a.1.2>' bye
        Closing connection <a.1.2>, reason: bye...
        ! 69
        > Error:
        > there is no connection <a.1.2>
        $ close_all_connections -p nothere bye
        Closing all connections in vhost nothere, reason: bye...
        Closed 0 connections
        "#,
    );
    let pid = broker.quiet("list_connections pid -s").trim().to_owned();
    assert!(
        !pid.contains(' ') && pid.starts_with('<') && pid.ends_with(".0>"),
        "{pid}"
    );
    let channel = broker.quiet("list_channels connection pid -s");
    assert!(channel.starts_with(&format!("{pid}\t<")), "{channel}");
    let consumer = broker.quiet("list_consumers channel_pid -s");
    assert_eq!(channel.trim().split('\t').next_back(), Some(consumer.trim()));
    let closed = broker.ctl(&format!("-q close_connection {pid} bye"));
    assert_eq!(closed.code, 0, "{closed:?}");
    scene.runtime.block_on(async {
        while scene.connection.status().connected() {
            tokio::task::yield_now().await;
        }
    });
    let again = crate::lists::scene(&broker);
    let name = broker.quiet("list_connections name -s");
    let closed = broker.run("rabbitmqctl", &["close_connection", name.trim(), "bye"]);
    assert_eq!(closed.code, 0, "by name too: {closed:?}");
    drop(again);
    let _third = crate::lists::scene(&broker);
    assert_eq!(
        broker.quiet("close_all_connections --global bye"),
        "Closed 1 connections\n"
    );
}

#[test]
fn queues_are_purged_and_deleted() {
    let broker = Broker::start();
    let _scene = scene(&broker);
    check(
        &broker,
        "
        $ purge_queue nothere
        Purging queue 'nothere' in vhost '/' ...
        ! 69
        > Error:
        > not_found
        $ delete_queue q1 --if-unused
        Deleting queue 'q1' on vhost '/' if queue is unused ...
        ! 64
        > Error:
        > Queue is in use
        $ delete_queue full --if-empty
        Deleting queue 'full' on vhost '/' if queue is empty ...
        ! 64
        > Error:
        > Queue is not empty
        $ delete_queue full
        Deleting queue 'full' on vhost '/' ...
        Queue was successfully deleted with 3 ready messages
        $ delete_queue full
        Deleting queue 'full' on vhost '/' ...
        ! 64
        > Error:
        > Queue not found
        $ purge_queue q1 --formatter json
        {\"node\":\"NODE\",\"result\":\"ok\"}
        $ -q delete_queue q1 -u
        ! 64
        > Error:
        > Queue is in use
        ",
    );
}
