//! The node's life: stopping, resetting, plugins, flags, definitions.

use std::net::TcpStream;

use crate::{broker::Broker, script::check};

#[test]
fn stop_app_reset_start_app() {
    let broker = Broker::start();
    broker.quiet("add_vhost gone");
    check(
        &broker,
        "
        $ reset
        ! 64
        > Error: this command requires the 'rabbit' app to be stopped on the target node. Stop it with 'rabbitmqctl stop_app'.
        > Arguments given:
        > \treset
        >
        > Usage
        >
        > rabbitmqctl [--node <node>] [--longnames] [--quiet] reset
        $ stop_app
        Stopping rabbit application on node NODE ...
        $ rabbitmq-diagnostics check_running
        Checking if RabbitMQ is running on node NODE ...
        ! 69
        > Error:
        > RabbitMQ on node NODE is not running or has not fully booted yet (check with is_booting)
        $ rabbitmq-diagnostics -q ping
        Ping succeeded
        $ list_queues
        ! 64
        > Error: this command requires the 'rabbit' app to be running on the target node. Start it with 'rabbitmqctl start_app'.
        > Arguments given:
        > \tlist_queues
        > ...
        ",
    );
    assert!(TcpStream::connect(broker.amqp).is_err());
    check(
        &broker,
        "
        $ reset
        Resetting node NODE ...
        $ start_app
        Starting node NODE ...
        $ -q list_vhosts
        name
        /
        $ rabbitmq-upgrade -q drain
        $ rabbitmq-upgrade -q revive
        $ suspend_listeners
        Will suspend client connection listeners on node NODE. The node will no longer accept client connections!
        ",
    );
    assert!(TcpStream::connect(broker.amqp).is_err());
    broker.quiet("resume_listeners");
    assert!(TcpStream::connect(broker.amqp).is_ok());
}

#[test]
fn stop_ends_the_broker() {
    let mut broker = Broker::start();
    let node = broker.node();
    let stopped = broker.ctl("shutdown");
    assert_eq!(
        (stopped.code, stopped.out),
        (0, format!("Shutting down node {node} ...\n"))
    );
    assert_eq!(broker.wait(), 0);
    assert!(
        !broker.dir.path().join("data/control.sock").exists(),
        "the socket went with it"
    );
    assert_eq!(broker.ctl("status").code, 69);
}

#[test]
fn what_scripts_ask_is_answered() {
    let broker = Broker::start();
    check(
        &broker,
        r#"
        $ eval 'rabbit_nodes:reached_target_cluster_size().'
        true
        $ eval node().
        'NODE'
        $ eval 'rabbit_misc:version().'
        "4.3.5"
        $ -q eval 1+1.
        ! 69
        > Error:
        > this broker is not written in Erlang and cannot evaluate '1+1.'...
        $ enable_feature_flag all
        Enabling all feature flags ...
        $ enable_feature_flag nothere
        Enabling feature flag "nothere" ...
        ! 64
        > Error:
        > This feature flag is not supported by node NODE
        $ rabbitmq-plugins is_enabled rabbitmq_management -q
        Plugin rabbitmq_management is enabled on node NODE
        $ rabbitmq-plugins is_enabled rabbitmq_mqtt -q
        ! 69
        > Error:
        > Plugin rabbitmq_mqtt is not enabled on node NODE...
        $ rabbitmq-plugins list -E -m -q rabbitmq_m
        rabbitmq_management
        rabbitmq_message_deduplication
        $ rabbitmq-plugins enable -q rabbitmq_management rabbitmq_prometheus
        $ rabbitmq-plugins enable -q nothere
        ! 70
        > Error:
        > {:plugins_not_found, [:nothere]}
        $ rabbitmq-plugins enable -q --offline nothere
        $ rabbitmq-plugins disable -q rabbitmq_prometheus
        ! 69
        > Error:
        > rabbitmq_prometheus is built in...
        $ rabbitmq-queues rebalance all -q --formatter json
        [
        {"Node name":"NODE","Number of quorum queues":0,"Number of replicated classic queues":0}
        ]
        $ rabbitmq-queues -q quorum_status nothere
        ! 69
        > Error:
        > not_found
        $ -q join_cluster rabbit@other
        ! 69
        > Error:
        > join_cluster: this broker runs on one node and does not cluster yet
        $ autocomplete list_q
        list_queues
        $ version
        4.3.5
        $ set_cluster_name blue
        Setting cluster name to blue ...
        $ eval node().
        'NODE'
        "#,
    );
    let flags = broker.quiet("list_feature_flags");
    assert!(
        flags.starts_with("name\tstate\n") && flags.contains("\nvirtual_host_metadata\tenabled\n"),
        "{flags}"
    );
    let listed = broker.run("rabbitmq-plugins", &["list"]);
    assert!(listed.out.contains("[E*] rabbitmq_management "), "{listed:?}");
    assert!(listed.out.contains("[  ] rabbitmq_shovel "), "{listed:?}");
}

#[test]
fn definitions_go_out_and_come_in() {
    let broker = Broker::start();
    let file = broker.dir.path().join("defs.json");
    let file = file.to_str().unwrap();
    broker.quiet("add_vhost v1");
    let exported = broker.ctl(&format!("export_definitions {file}"));
    assert_eq!(
        exported.out,
        format!("Exporting definitions in JSON to a file at \"{file}\" ...\n"),
        "{exported:?}"
    );
    let printed: serde_json::Value = serde_json::from_str(&broker.ctl("export_definitions -").out).unwrap();
    assert_eq!(printed["vhosts"].as_array().unwrap().len(), 2);
    broker.quiet("delete_vhost v1");
    let imported = broker.ctl(&format!("import_definitions {file}"));
    assert_eq!(imported.code, 0, "{imported:?}");
    assert_eq!(broker.quiet("list_vhosts -s"), "/\nv1\n");
    let again = broker.quiet(&format!("import_definitions {file} --skip-if-unchanged"));
    assert_eq!(again, "Definitions are unchanged: nothing was imported\n");
    let text = std::fs::read_to_string(file).unwrap();
    let piped = broker.run_with("rabbitmqctl", &["-q", "import_definitions"], &text);
    assert_eq!(piped.code, 0, "{piped:?}");
    let bad = broker.run_with("rabbitmqctl", &["-q", "import_definitions"], "no json");
    assert_eq!(bad.code, 65, "{bad:?}");
    let absent = broker.ctl("import_definitions /nothere.json");
    assert_eq!(absent.code, 65, "{absent:?}");
    assert!(
        absent.err.contains("File /nothere.json does not exist"),
        "{absent:?}"
    );
    let nowhere = broker.ctl("export_definitions /nothere/x.json");
    assert_eq!(nowhere.code, 65, "{nowhere:?}");
}

#[test]
fn a_full_pipe_and_a_closed_one_are_no_crash() {
    let broker = Broker::start();
    let data = broker.dir.path().join("data");
    let status = std::process::Command::new("sh")
        .arg("-c")
        .arg(format!(
            "{} --data-dir {} status | head -1; echo ${{PIPESTATUS:-0}}",
            env!("CARGO_BIN_EXE_leveretctl"),
            data.display()
        ))
        .output()
        .unwrap();
    let err = String::from_utf8_lossy(&status.stderr);
    assert!(!err.contains("panic"), "{err}");
    let full = std::process::Command::new("sh")
        .arg("-c")
        .arg(format!(
            "{} --data-dir {} status > /dev/full",
            env!("CARGO_BIN_EXE_leveretctl"),
            data.display()
        ))
        .output()
        .unwrap();
    assert_eq!(full.status.code(), Some(74), "{full:?}");
}

#[test]
fn the_service_manager_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let listener = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    let mut broker = Broker::start_with(
        &[],
        &[
            ("NOTIFY_SOCKET", path.to_str().unwrap()),
            ("WATCHDOG_USEC", "20000"),
        ],
    );
    let next = || {
        let mut buffer = [0; 200];
        let length = listener.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(buffer.get(..length).unwrap()).into_owned()
    };
    assert_eq!(next(), "READY=1\nSTATUS=serving clients");
    assert_eq!(
        (next(), next()),
        ("WATCHDOG=1".to_owned(), "WATCHDOG=1".to_owned())
    );
    broker.quiet("shutdown");
    while next() != "STOPPING=1" {}
    assert_eq!(broker.wait(), 0);
}
