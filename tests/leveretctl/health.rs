//! Health checks and reports.

use serde_json::Value;

use crate::{
    broker::{Broker, run},
    script::check,
};

#[test]
fn a_healthy_node() {
    let broker = Broker::start();
    let port = broker.amqp.port();
    let http = broker.http.port();
    check(
        &broker,
        &format!(
            r#"
        $ rabbitmq-diagnostics -q ping
        Ping succeeded
        $ rabbitmq-diagnostics ping --formatter json
        {{"message":"Ping succeeded"}}
        $ rabbitmq-diagnostics check_running
        Checking if RabbitMQ is running on node NODE ...
        RabbitMQ on node NODE is fully booted and running
        $ rabbitmq-diagnostics is_running --formatter json
        {{"message":"RabbitMQ on node NODE is fully booted and running","result":true}}
        $ rabbitmq-diagnostics is_booting -q
        RabbitMQ on node NODE is fully booted (check with is_running), stopped or has not started booting yet
        $ rabbitmq-diagnostics check_alarms
        Asking node NODE to report any local resource alarms ...
        Node NODE reported no alarms, local or clusterwide
        $ rabbitmq-diagnostics check_local_alarms -q
        Node NODE reported no local alarms
        $ rabbitmq-diagnostics check_local_alarms --formatter json
        {{"result":"ok"}}
        $ rabbitmq-diagnostics alarms --formatter json
        {{"alarms":[],"node":"NODE","result":"ok"}}
        $ rabbitmq-diagnostics check_port_connectivity
        Testing TCP connections to all active listeners on node NODE ...
        Successfully connected to ports {port}, {http} on node NODE.
        $ rabbitmq-diagnostics check_port_listener {port}
        Asking node NODE if there's an active listener on port {port} ...
        A listener for port {port} is running on node NODE.
        $ rabbitmq-diagnostics check_port_listener 1 -q
        ! 69
        > No listener for port 1 is active on node NODE. Found listeners that use the following ports: {port}, {http}
        $ rabbitmq-diagnostics check_protocol_listener amqp091
        Asking node NODE if there's an active listener for protocol amqp091 ...
        A listener for protocol amqp091 is running on node NODE.
        $ rabbitmq-diagnostics check_protocol_listener mqtt -q
        ! 69
        > Error:
        > No listener for protocol mqtt is active on node NODE. Found listeners for the following protocols: amqp, http
        $ rabbitmq-diagnostics check_virtual_hosts
        Checking if all vhosts are running on node NODE ...
        Node NODE reported all vhosts as running
        $ rabbitmq-diagnostics listeners -q
        Interface: 127.0.0.1, port: {port}, protocol: amqp, purpose: AMQP 0-9-1
        Interface: 127.0.0.1, port: {http}, protocol: http, purpose: HTTP API
        $ rabbitmq-queues check_if_node_is_quorum_critical --formatter json
        {{"message":"Target node seems to be the only one in a single node cluster, the check does not apply","result":"ok"}}
        $ rabbitmq-queues check_if_node_is_mirror_sync_critical -q
        Node NODE seems to be the only one in a single node cluster, the check does not apply
        $ rabbitmq-diagnostics check_certificate_expiration --within 3 --unit weeks -q
        No certificates are expiring within 3 weeks.
        $ rabbitmq-upgrade await_online_quorum_plus_one -t 5
        Will wait for a quorum + 1 of nodes to be online for all quorum queues for 5 seconds...
        Target node seems to be the only one in a single node cluster, the command does not apply
        $ node_health_check -q
        Health check passed
        $ await_startup
        $ rabbitmq-diagnostics server_version -q
        4.3.5
        "#
        ),
    );
}

#[test]
fn an_alarm_fails_the_checks_and_shows_in_reports() {
    let broker = Broker::start();
    broker.quiet("set_vm_memory_high_watermark 0.0");
    check(
        &broker,
        r#"
        $ rabbitmq-diagnostics check_local_alarms -q
        ! 69
        > Error:
        > Memory alarm on node NODE
        $ rabbitmq-diagnostics check_alarms --formatter json
        ! 69
        > {"global":[],"local":["Memory alarm on node NODE"],"message":"Node NODE reported alarms","result":"error"}
        $ rabbitmq-diagnostics alarms -q
        Memory alarm on node NODE
        "#,
    );
    let status: Value = serde_json::from_str(&broker.quiet("status --formatter json")).unwrap();
    assert_eq!(status["alarms"], serde_json::json!(["memory"]));
}

#[test]
fn status_tells_what_people_read() {
    let broker = Broker::start();
    let text = broker.quiet("status --unit mb");
    for line in [
        &format!("OS PID: {}", broker.pid()),
        "Is under maintenance?: false",
        "RabbitMQ version: 4.3.5",
        &format!("Node name: {}", broker.node()),
        "Connection count: 0",
        "Virtual host count: 1",
        &format!(
            "Interface: 127.0.0.1, port: {}, protocol: amqp, purpose: AMQP 0-9-1",
            broker.amqp.port()
        ),
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
    }
    assert!(
        text.contains("Memory high watermark setting: 0.6 of available memory, computed to: "),
        "{text}"
    );
    let json: Value = serde_json::from_str(&broker.quiet("status --formatter json")).unwrap();
    for key in [
        "rabbitmq_version",
        "product_name",
        "product_version",
        "erlang_version",
        "crypto_lib_version",
        "os",
        "pid",
        "uptime",
        "is_under_maintenance",
        "processes",
        "run_queue",
        "net_ticktime",
        "alarms",
        "tags",
        "listeners",
        "memory",
        "vm_memory_calculation_strategy",
        "vm_memory_high_watermark_setting",
        "vm_memory_high_watermark_limit",
        "disk_free",
        "disk_free_limit",
        "data_directory",
        "raft_data_directory",
        "config_files",
        "log_files",
        "active_plugins",
        "enabled_plugin_file",
        "totals",
    ] {
        assert!(json.get(key).is_some(), "{key} in {json}");
    }
    assert!(json["memory"]["total"]["rss"].as_u64().unwrap() > 0);
    let cluster: Value = serde_json::from_str(&broker.quiet("cluster_status --formatter json")).unwrap();
    assert_eq!(cluster["running_nodes"], serde_json::json!([broker.node()]));
    let cluster = broker.quiet("cluster_status");
    assert!(
        cluster.contains(&format!("Running Nodes\n\n{}\n", broker.node())),
        "{cluster}"
    );
    let memory = broker.run(
        "rabbitmq-diagnostics",
        &["-q", "memory_breakdown", "--unit", "mb"],
    );
    assert!(memory.out.lines().next().unwrap().ends_with("%)"), "{memory:?}");
    let report = broker.run("rabbitmqctl", &["-q", "report"]);
    assert_eq!(report.code, 0, "{report:?}");
    assert!(report.out.contains("guest\t.*\t.*\t.*"), "{}", report.out);
}

#[test]
fn without_a_broker_the_code_is_69_and_the_text_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let variables = [("LEVERET_DATA_DIR", dir.path().to_str().unwrap())];
    let ping = run("rabbitmq-diagnostics", &["-q", "ping"], "", &variables);
    assert_eq!(ping.code, 69, "{ping:?}");
    assert!(
        ping.err.contains("Failed to connect and authenticate"),
        "{ping:?}"
    );
    let list = run("rabbitmqctl", &["list_queues"], "", &variables);
    assert_eq!(list.code, 69, "{list:?}");
    assert!(
        list.err
            .starts_with("Error: unable to perform an operation on node"),
        "{list:?}"
    );
    assert!(list.err.contains("--data-dir"), "{list:?}");
    let wait = run("rabbitmqctl", &["await_startup", "-t", "0"], "", &variables);
    assert_eq!(wait.code, 69, "{wait:?}");
    // What needs no broker works.
    for words in [
        &["version"][..],
        &["--version"],
        &["help"],
        &["list_queues", "--help"],
        &["hash_password", "x"],
    ] {
        assert_eq!(run("rabbitmqctl", words, "", &variables).code, 0, "{words:?}");
    }
}

#[test]
fn usage_errors_suggest_what_was_meant() {
    let dir = tempfile::tempdir().unwrap();
    let variables = [("LEVERET_DATA_DIR", dir.path().to_str().unwrap())];
    for (words, text) in [
        ("list_quues", "Did you mean 'list_queues'"),
        ("list_queues --onlin", "Did you mean '--online'"),
        ("add_user", "not enough arguments."),
        ("add_user a b c", "too many arguments."),
        ("help nothere", "Command 'nothere' not found"),
        ("frobnicate", "Command 'frobnicate' not found"),
        ("list_queues --formatter nosuch", "unknown formatter 'nosuch'"),
        ("list_queues --timeout soon", "--timeout is a number of seconds"),
        ("list_queues --url ftp://x", "the URL is wrong"),
    ] {
        let words: Vec<&str> = words.split(' ').collect();
        let ran = run("rabbitmqctl", &words, "", &variables);
        assert_eq!(ran.code, 64, "{words:?}: {ran:?}");
        assert!(ran.err.contains(text), "{words:?}: {ran:?}");
        assert_eq!(ran.out, "", "{words:?}");
    }
}

#[test]
fn over_http_a_password_is_needed() {
    let broker = Broker::start();
    let url = |login: &str| format!("http://{login}@{}", broker.http);
    let ctl = |login: &str, words: &[&str]| {
        let url = url(login);
        run("rabbitmqctl", words, "", &[("LEVERETCTL_URL", &url)])
    };
    let listed = ctl("guest:guest", &["-q", "list_vhosts"]);
    assert_eq!((listed.code, listed.out.as_str()), (0, "name\n/\n"), "{listed:?}");
    let wrong = ctl("guest:wrong", &["list_vhosts"]);
    assert_eq!(wrong.code, 77, "{wrong:?}");
    assert!(wrong.err.contains("refuses this user or password"), "{wrong:?}");
    broker.quiet("add_user weak pw");
    broker.quiet("set_user_tags weak management");
    let weak = ctl("weak:pw", &["add_vhost", "v"]);
    assert_eq!(weak.code, 77, "missing rights: {weak:?}");
    assert!(!weak.err.contains("pw"), "no password in messages: {weak:?}");
}
