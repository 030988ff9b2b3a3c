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
        "[amqp]\nheartbeat = 18\n[log]\nlevel = \"debug\"\n[alarms]\nvm_memory_high_watermark = 0.9\n",
    )
    .unwrap();
    assert_eq!(
        reload().out,
        "Changed: alarms.vm_memory_high_watermark, log.level\nChanged in the file, and waits for a restart: amqp.heartbeat\n"
    );
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
