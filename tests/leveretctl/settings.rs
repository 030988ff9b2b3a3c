//! Settings of the running broker.

use crate::{broker::Broker, script::check};

#[test]
fn alarms_and_the_log_are_set() {
    let broker = Broker::start();
    check(
        &broker,
        r#"
        $ set_vm_memory_high_watermark 0.5
        Setting memory threshold on NODE to 0.5 ...
        $ set_vm_memory_high_watermark absolute 2GB
        Setting memory threshold on NODE to 2GB bytes ...
        $ set_vm_memory_high_watermark lots
        ! 65
        > Error (argument validation): Bad argument.
        > ...
        $ set_vm_memory_high_watermark 1.5
        ! 65
        > Error (argument validation): Bad argument: The threshold should be a fraction between 0.0 and 1.0
        > ...
        $ set_disk_free_limit 60MB
        Setting disk free limit on NODE to 60MB bytes ...
        $ set_disk_free_limit mem_relative 0.1
        Setting disk free limit on NODE to 0.1 times the total RAM ...
        $ set_disk_free_limit lots
        ! 65
        > Error (argument validation): Bad argument.
        > ...
        $ set_log_level debug
        Setting log level to "debug" ...
        $ leveretctl log_level
        debug
        $ set_log_level loud
        ! 69
        > Error:
        > level loud is not supported. Try one of debug, info, warning, error, critical, none
        $ -q set_log_level leveret::server=debug
        $ leveretctl log_level --formatter json
        {"level":"leveret::server=debug"}
        "#,
    );
}

#[test]
fn the_environment_tells_origins_and_a_reload_takes_over_what_can_change() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("leveret.toml");
    std::fs::write(&file, "[amqp]\nheartbeat = 17\n[log]\nlevel = \"info\"\n").unwrap();
    let file = file.to_str().unwrap();
    let broker = Broker::start_with(&["--config", file], &[("LEVERET_LIMITS__QUEUE_MAX", "99")]);
    let environment = broker.quiet("environment");
    for row in [
        format!("amqp.heartbeat\t17\t{file}"),
        "limits.queue_max\t99\tenvironment".to_owned(),
        "amqp.listen\t127.0.0.1:0\tflag".to_owned(),
        "amqp.channel_max\t2047\tdefault".to_owned(),
        "auth.default_password\t[redacted]\tdefault".to_owned(),
    ] {
        assert!(
            environment.lines().any(|line| line == row),
            "{row} in\n{environment}"
        );
    }
    let reload = || broker.run("leveretctl", &["-q", "reload"]);
    assert_eq!(reload().out, "Nothing has changed\n");
    std::fs::write(
        file,
        "[amqp]\nheartbeat = 18\nmax_message_size = 5\n[log]\nlevel = \"debug\"\n[alarms]\nvm_memory_high_watermark = 0.9\n\
         [limits]\nexchange_max = 0\n[storage]\ncommit_interval_us = 300\n",
    )
    .unwrap();
    let changed = reload();
    assert_eq!(
        changed.out,
        "Changed: alarms.vm_memory_high_watermark (0.6 -> 0.9), amqp.heartbeat (17 -> 18), \
         amqp.max_message_size (16777216 -> 5), limits.exchange_max (-1 -> 0), log.level (info -> debug)\n\
         Changed in the file, and waits for a restart: storage.commit_interval_us (250 -> 300)\n"
    );
    limits_are_in_force(&broker);
    assert_eq!(broker.run("leveretctl", &["log_level"]).out, "debug\n");
    let status: serde_json::Value = serde_json::from_str(&broker.quiet("status --formatter json")).unwrap();
    assert_eq!(status["vm_memory_high_watermark_setting"]["relative"], 0.9);
    // One bad value, and nothing of the file is taken over.
    std::fs::write(
        file,
        "[log]\nlevel = \"warn\"\n[alarms]\nvm_memory_high_watermark = \"lots\"\n",
    )
    .unwrap();
    let bad = reload();
    assert_eq!(bad.code, 65, "{bad:?}");
    assert!(
        bad.err.contains("alarms.vm_memory_high_watermark") && bad.err.contains("Nothing was changed"),
        "{bad:?}"
    );
    assert_eq!(broker.run("leveretctl", &["log_level"]).out, "debug\n");
    // The signal does the same.
    std::fs::write(file, "[log]\nlevel = \"trace\"\n").unwrap();
    let sent = std::process::Command::new("kill")
        .args(["-HUP", &broker.pid().to_string()])
        .status();
    assert!(sent.unwrap().success());
    while broker.run("leveretctl", &["log_level"]).out != "trace\n" {
        std::thread::yield_now();
    }
}

/// A message of five bytes, and no exchange beside those there are.
fn limits_are_in_force(broker: &Broker) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let properties = lapin::ConnectionProperties::default();
        let connection = lapin::Connection::connect(&broker.uri(), properties)
            .await
            .unwrap();
        let channel = connection.create_channel().await.unwrap();
        let options = lapin::options::ConfirmSelectOptions::default();
        channel.confirm_select(options).await.unwrap();
        for (body, taken) in [(&b"five!"[..], true), (b"sixes!", false)] {
            let options = lapin::options::BasicPublishOptions::default();
            let properties = lapin::BasicProperties::default();
            let publish = channel.basic_publish("".into(), "nobody".into(), options, body, properties);
            let confirmed = match publish.await {
                Ok(confirm) => confirm.await.is_ok(),
                Err(_) => false,
            };
            assert_eq!(confirmed, taken, "{body:?}");
        }
        let channel = connection.create_channel().await.unwrap();
        let options = lapin::options::ExchangeDeclareOptions::default();
        let arguments = lapin::types::FieldTable::default();
        let declared = channel.exchange_declare("e".into(), lapin::ExchangeKind::Fanout, options, arguments);
        assert!(declared.await.is_err(), "one exchange more than none");
    });
}

#[test]
fn the_log_is_read_and_its_level_set_for_a_part() {
    let broker = Broker::start();
    let lines = broker.run("rabbitmq-diagnostics", &["-q", "log_tail", "-N", "1"]);
    assert_eq!(lines.code, 0, "{lines:?}");
    assert!(
        lines.out.ends_with("INFO Server startup complete\n") && lines.out.lines().count() == 1,
        "{lines:?}"
    );
    broker.quiet("set_log_level debug --target storage");
    assert_eq!(
        broker.run("leveretctl", &["log_level"]).out,
        "info,leveret::storage=debug\n"
    );
    broker.quiet("set_log_level warning --target storage");
    assert_eq!(
        broker.run("leveretctl", &["log_level"]).out,
        "info,leveret::storage=warn\n"
    );
    let data_dir = broker.dir.path().join("data");
    let stream = std::process::Command::new(env!("CARGO_BIN_EXE_leveretctl"))
        .args(["log_tail_stream", "-d", "60", "--data-dir"])
        .arg(&data_dir)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn();
    let mut stream = stream.unwrap();
    let mut told = std::io::BufReader::new(stream.stderr.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut told, &mut line).unwrap();
    assert!(line.starts_with("Streaming logs from node"), "{line}");
    broker.quiet("set_log_level info");
    let mut lines = std::io::BufReader::new(stream.stdout.take().unwrap());
    line.clear();
    std::io::BufRead::read_line(&mut lines, &mut line).unwrap();
    assert!(line.contains("log level set"), "{line}");
    // Ctrl-C is an end like any other.
    let sent = std::process::Command::new("kill")
        .args(["-INT", &stream.id().to_string()])
        .status();
    assert!(sent.unwrap().success());
    assert!(stream.wait().unwrap().success());
}

#[test]
fn events_are_streamed_as_they_happen() {
    let broker = Broker::start_with(&[], &[("LEVERET_AMQP__EVENT_EXCHANGE", "true")]);
    let data_dir = broker.dir.path().join("data");
    let stream = std::process::Command::new(env!("CARGO_BIN_EXE_leveretctl"))
        .args([
            "diagnostics",
            "consume_event_stream",
            "--pattern",
            "vhost.*",
            "--data-dir",
        ])
        .arg(&data_dir)
        .stdout(std::process::Stdio::piped())
        .spawn();
    let mut stream = stream.unwrap();
    let mut lines = std::io::BufReader::new(stream.stdout.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut lines, &mut line).unwrap();
    assert!(line.starts_with("Streaming events from node"), "{line}");
    broker.quiet("add_vhost seen");
    line.clear();
    std::io::BufRead::read_line(&mut lines, &mut line).unwrap();
    let event: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(
        (&event["event"], &event["name"]),
        (&"vhost.created".into(), &"seen".into()),
        "{line}"
    );
    let sent = std::process::Command::new("kill")
        .args(["-INT", &stream.id().to_string()])
        .status();
    assert!(sent.unwrap().success());
    assert!(stream.wait().unwrap().success());
    assert_eq!(broker.quiet("list_queues -s"), "", "nothing is left behind");
    let none = Broker::start().run("rabbitmq-diagnostics", &["consume_event_stream", "-d", "1"]);
    assert_eq!(none.code, 69, "{none:?}");
    assert!(none.err.contains("amqp.event_exchange = true"), "{none:?}");
}

#[test]
fn what_only_rabbitmq_has_is_told_apart_from_what_is_unknown() {
    let broker = Broker::start();
    for (tool, words, code, text) in [
        (
            "rabbitmqctl",
            &["encode", "x", "y"][..],
            69,
            "reads no encrypted settings",
        ),
        ("rabbitmq-streams", &["stream_status", "s"], 69, "no streams yet"),
        (
            "rabbitmq-streams",
            &["list_stream_consumers"],
            69,
            "no streams yet",
        ),
        (
            "rabbitmq-diagnostics",
            &["erlang_cookie_hash"],
            0,
            "no Erlang cookie",
        ),
        ("rabbitmq-diagnostics", &["observer"], 69, "leveretctl top"),
        ("rabbitmq-streams", &["frobnicate"], 64, "not found"),
    ] {
        let ran = broker.run(tool, words);
        assert_eq!(ran.code, code, "{tool} {words:?}: {ran:?}");
        assert!((ran.out + &ran.err).contains(text), "{tool} {words:?}");
    }
}

#[test]
fn a_rabbitmq_conf_is_understood() {
    let dir = tempfile::tempdir().unwrap();
    let definitions = dir.path().join("defs.json");
    std::fs::write(&definitions, "{\"vhosts\":[{\"name\":\"from_file\"}]}").unwrap();
    let file = dir.path().join("rabbitmq.conf");
    let conf = format!(
        "default_user = alice\ndefault_pass = secret\nheartbeat = 21\n\
         vm_memory_high_watermark.relative = 0.7\nload_definitions = {}\n\
         listeners.ssl.default = 5671\n",
        definitions.display()
    );
    std::fs::write(&file, &conf).unwrap();
    let file = file.to_str().unwrap();
    let broker = Broker::start_with(&["--config", file], &[("RABBITMQ_DEFAULT_VHOST", "other")]);
    assert_eq!(broker.quiet("list_users -s"), "alice\t[administrator]\n");
    assert_eq!(broker.quiet("list_vhosts -s"), "from_file\nother\n");
    assert_eq!(broker.quiet("authenticate_user alice secret"), "Success\n");
    let environment = broker.quiet("environment");
    for row in [
        format!("amqp.heartbeat\t21\t{file}:3"),
        format!("alarms.vm_memory_high_watermark\t0.7\t{file}:4"),
        "auth.default_vhost\tother\tenvironment".to_owned(),
    ] {
        assert!(
            environment.lines().any(|line| line == row),
            "{row} in\n{environment}"
        );
    }
    // Definitions are taken in at a reload too, and bad ones change nothing.
    std::fs::write(&definitions, "{\"vhosts\":[{\"name\":\"later\"}]}").unwrap();
    let reload = || broker.run("leveretctl", &["-q", "reload"]);
    assert_eq!(reload().code, 0);
    assert_eq!(broker.quiet("list_vhosts -s"), "from_file\nlater\nother\n");
    std::fs::write(&definitions, "{\"vhosts\":[{}]}").unwrap();
    std::fs::write(file, conf.replace("0.7", "0.8")).unwrap();
    assert_eq!(reload().code, 65);
    assert!(
        broker
            .quiet("environment")
            .contains("alarms.vm_memory_high_watermark\t0.7\t")
    );
}

#[test]
fn an_unknown_key_of_a_rabbitmq_conf_stops_the_start_with_a_hint() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rabbitmq.conf");
    std::fs::write(&file, "heartbeet = 3\n").unwrap();
    let started = std::process::Command::new(env!("CARGO_BIN_EXE_leveret"))
        .arg("--config")
        .arg(&file)
        .arg("--data-dir")
        .arg(dir.path().join("data"))
        .output()
        .unwrap();
    assert_eq!(started.status.code(), Some(78), "{started:?}");
    let told = String::from_utf8_lossy(&started.stderr);
    assert!(
        told.contains("rabbitmq.conf:1: unknown setting heartbeet; did you mean heartbeat?"),
        "{told}"
    );
}
