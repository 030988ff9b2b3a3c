//! What RabbitMQ's tools do not have.

use std::process::Command;

use crate::broker::{Broker, run};

fn ours(broker: &Broker, words: &[&str]) -> crate::broker::Ran {
    broker.run("leveretctl", words)
}

/// Declares a durable queue with arguments, over HTTP.
fn declare(broker: &Broker, name: &str, arguments: &str) {
    let file = broker.dir.path().join("queue.json");
    let text = format!(
        "{{\"queues\":[{{\"vhost\":\"/\",\"name\":\"{name}\",\"durable\":true,\"auto_delete\":false,\"arguments\":{arguments}}}]}}"
    );
    std::fs::write(&file, text).unwrap();
    broker.quiet(&format!("import_definitions {}", file.display()));
}

#[test]
fn explain_tells_every_setting_and_its_origin() {
    let broker = Broker::start();
    declare(&broker, "q", "{\"x-max-length\":10}");
    broker.quiet("set_policy p1 ^q '{\"max-length\":20,\"message-ttl\":1000}'");
    broker.quiet("set_operator_policy op1 ^q '{\"max-length\":15}'");
    let told = ours(&broker, &["explain", "q"]);
    assert_eq!(told.code, 0, "{told:?}");
    for line in [
        "Queue 'q' in vhost '/'",
        "type                     classic                     as declared",
        "message-ttl              1000                        policy p1",
        "max-length               10                          argument x-max-length (operator policy op1 says 15, policy p1 says 20)",
        "overflow                 drop-head                   default",
        "0 messages are ready, 0 wait for their ack; 0 consumers",
    ] {
        let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(
            told.out.lines().any(|found| squeezed(found) == squeezed(line)),
            "{line} in\n{}",
            told.out
        );
    }
    let json = ours(&broker, &["explain", "q", "--formatter", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    let ttl = json["settings"]
        .as_array()
        .unwrap()
        .iter()
        .find(|row| row["setting"] == "message-ttl");
    assert_eq!(ttl.unwrap()["origin"], "policy p1");
    let missing = ours(&broker, &["explain", "no"]);
    assert_eq!(
        (missing.code, missing.err.as_str()),
        (69, "Error:\nno queue 'no' in vhost '/'\n")
    );
}

#[test]
fn the_doctor_finds_what_is_wrong() {
    let broker = Broker::start();
    let well = ours(&broker, &["doctor"]);
    assert_eq!(well.code, 0, "{well:?}");
    assert!(
        well.out
            .starts_with("note: the user guest has its default password"),
        "{well:?}"
    );
    declare(&broker, "q", "{\"x-dead-letter-exchange\":\"nowhere\"}");
    broker.quiet("set_vm_memory_high_watermark 0.0");
    let ill = ours(&broker, &["doctor", "--formatter", "json"]);
    assert_eq!(ill.code, 69, "{ill:?}");
    let found: serde_json::Value = serde_json::from_str(&ill.err).unwrap();
    let told = |what: &str| {
        let rows = found.as_array().unwrap();
        rows.iter()
            .any(|row| row["what"].as_str().unwrap().starts_with(what))
    };
    assert!(told("memory alarm: publishers are blocked"), "{found}");
    assert!(
        told("dead letters go to an exchange that does not exist, and are lost: 'q' in '/'"),
        "{found}"
    );
    broker.quiet("stop_app");
    let stopped = ours(&broker, &["doctor"]);
    assert!(
        stopped.err.contains("problem: the application is stopped"),
        "{stopped:?}"
    );
}

#[test]
fn definitions_are_compared() {
    let broker = Broker::start();
    let file = broker.dir.path().join("a.json");
    let file = file.to_str().unwrap();
    declare(&broker, "q", "{}");
    broker.quiet(&format!("export_definitions {file}"));
    let same = ours(&broker, &["definitions", "diff", file]);
    assert_eq!(
        (same.code, same.out.as_str()),
        (0, "No differences\n"),
        "{same:?}"
    );
    broker.quiet("delete_queue q");
    broker.quiet("add_vhost v");
    let other = ours(&broker, &["definitions", "diff", file]);
    assert_eq!(other.code, 2, "{other:?}");
    assert_eq!(other.out, "+ vhost v\n- queue / q\n", "{other:?}");
    let json = ours(&broker, &["definitions", "diff", file, "--formatter", "json"]);
    let rows: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(rows[0]["kind"], "vhost");
    let files = ours(&broker, &["definitions", "diff", file, file]);
    assert_eq!(files.code, 0, "{files:?}");
    assert_eq!(ours(&broker, &["definitions", "diff", "/nothere"]).code, 74);
}

#[test]
fn a_backup_is_taken_while_serving_and_restored() {
    let broker = Broker::start();
    declare(&broker, "kept", "{}");
    let copy = broker.dir.path().join("copy");
    let copy = copy.to_str().unwrap();
    let taken = ours(&broker, &["-q", "backup", copy]);
    assert_eq!(taken.code, 0, "{taken:?}");
    let again = ours(&broker, &["-q", "backup", copy]);
    assert_eq!(again.code, 74, "it exists: {again:?}");
    let url = format!("http://guest:guest@{}", broker.http);
    let remote = run("leveretctl", &["backup", copy, "--url", &url], "", &[]);
    assert_eq!(remote.code, 64, "{remote:?}");
    let new = broker.dir.path().join("new");
    let restored = ours(&broker, &["restore", copy, "--data-dir", new.to_str().unwrap()]);
    assert_eq!(restored.code, 0, "{restored:?}");
    assert_eq!(restored.out, "1 queues with 0 messages restored\n");
    let running = ours(&broker, &["restore", copy, "--replace"]);
    assert_eq!(running.code, 69, "a broker runs there: {running:?}");
    let checked = Command::new(env!("CARGO_BIN_EXE_leveret"))
        .arg("--data-dir")
        .arg(&new)
        .args(["export", "kept"])
        .output()
        .unwrap();
    assert!(checked.status.success(), "the queue is in it: {checked:?}");
}

#[test]
fn completions_and_man_pages_are_made_from_the_tables() {
    for shell in ["bash", "zsh", "fish"] {
        let made = run("leveretctl", &["completions", shell], "", &[]);
        assert_eq!(made.code, 0, "{made:?}");
        assert!(
            made.out.contains("list_queues") && made.out.contains("set_policy"),
            "{shell}"
        );
    }
    assert_eq!(run("leveretctl", &["completions", "csh"], "", &[]).code, 64);
    let bash = run("leveretctl", &["completions", "bash"], "", &[]);
    let sound = Command::new("bash")
        .arg("-n")
        .arg("/dev/stdin")
        .stdin(std::process::Stdio::piped())
        .spawn();
    let mut sound = sound.unwrap();
    std::io::Write::write_all(&mut sound.stdin.take().unwrap(), bash.out.as_bytes()).unwrap();
    assert!(sound.wait().unwrap().success());
    let dir = tempfile::tempdir().unwrap();
    let made = run("leveretctl", &["man", dir.path().to_str().unwrap()], "", &[]);
    assert_eq!(made.code, 0, "{made:?}");
    let page = std::fs::read_to_string(dir.path().join("leveretctl-list_queues.1")).unwrap();
    assert!(page.contains("Lists queues and their properties"), "{page}");
}

#[test]
fn bench_is_the_load_generator() {
    let told = run("leveretctl", &["bench", "--version"], "", &[]);
    assert_eq!(told.code, 0, "{told:?}");
    assert!(told.out.starts_with("leveretperf "), "{told:?}");
}

#[test]
fn under_its_own_name_banners_stay_out_of_pipes() {
    let broker = Broker::start();
    let listed = ours(&broker, &["list_vhosts"]);
    assert_eq!(
        (listed.out.as_str(), listed.err.as_str()),
        ("name\n/\n", "Listing vhosts ...\n")
    );
}

/// Publishes two messages to the default exchange.
fn publish(broker: &Broker, queue: &str, payloads: &[&str]) {
    let now: Vec<(&str, Option<i64>)> = payloads.iter().map(|payload| (*payload, None)).collect();
    publish_delayed(broker, queue, &now);
}

/// Publishes, with delays in milliseconds.
fn publish_delayed(broker: &Broker, queue: &str, payloads: &[(&str, Option<i64>)]) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let connection = lapin::Connection::connect(&broker.uri(), lapin::ConnectionProperties::default())
            .await
            .unwrap();
        let channel = connection.create_channel().await.unwrap();
        channel
            .confirm_select(lapin::options::ConfirmSelectOptions::default())
            .await
            .unwrap();
        for (payload, delay) in payloads {
            let options = lapin::options::BasicPublishOptions::default();
            let mut properties = lapin::BasicProperties::default();
            if let Some(delay) = delay {
                let mut headers = lapin::types::FieldTable::default();
                headers.insert("x-opt-delivery-delay".into(), (*delay).into());
                properties = properties.with_headers(headers);
            }
            let confirm = channel
                .basic_publish("".into(), queue.into(), options, payload.as_bytes(), properties)
                .await
                .unwrap();
            confirm.await.unwrap();
        }
    });
}

#[test]
fn tail_shows_copies_and_leaves_nothing_behind() {
    use std::io::{BufRead, BufReader, Read};
    let broker = Broker::start();
    declare(&broker, "q", "{}");
    let data_dir = broker.dir.path().join("data");
    for words in [&["tail", "q"][..], &["tail", "--exchange", ""]] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_leveretctl"))
            .args(words)
            .args(["--limit", "2", "--seconds", "30", "--data-dir"])
            .arg(&data_dir)
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        // Its banner comes when it listens.
        let mut banner = String::new();
        BufReader::new(child.stderr.take().unwrap())
            .read_line(&mut banner)
            .unwrap();
        assert!(banner.starts_with("What is published to"), "{banner}");
        publish(&broker, "q", &["first", "second"]);
        let mut out = String::new();
        child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        assert!(child.wait().unwrap().success());
        assert_eq!(
            out,
            "(default)\tq\t-> [q]\t5\tfirst\n(default)\tq\t-> [q]\t6\tsecond\n"
        );
        assert_eq!(broker.quiet("list_queues name -s"), "q\n", "its queue is gone");
    }
    assert_eq!(
        broker.quiet("list_queues messages -s"),
        "4\n",
        "nothing was consumed"
    );
    assert_eq!(ours(&broker, &["tail", "no"]).code, 69);
}

#[test]
fn tail_ends_with_ctrl_c_and_tidies_up() {
    use std::io::{BufRead, BufReader};
    let broker = Broker::start();
    declare(&broker, "q", "{}");
    let mut child = Command::new(env!("CARGO_BIN_EXE_leveretctl"))
        .args(["tail", "q", "--data-dir"])
        .arg(broker.dir.path().join("data"))
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut banner = String::new();
    BufReader::new(child.stderr.take().unwrap())
        .read_line(&mut banner)
        .unwrap();
    let sent = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(sent.unwrap().success());
    assert!(child.wait().unwrap().success());
    assert_eq!(broker.quiet("list_queues name -s"), "q\n");
}

#[test]
fn top_prints_one_look_where_there_is_no_terminal() {
    let broker = Broker::start();
    declare(&broker, "q", "{}");
    let look = ours(&broker, &["top"]);
    assert_eq!(look.code, 0, "{look:?}");
    assert!(
        look.out.contains("no alarms") && look.out.contains("\nq (/) "),
        "{look:?}"
    );
    assert_eq!(ours(&broker, &["top", "--interval", "never"]).code, 64);
}

#[test]
fn messages_are_looked_at_found_moved_and_brought_back() {
    let broker = Broker::start();
    declare(&broker, "q", "{}");
    declare(&broker, "other", "{}");
    publish(&broker, "q", &["one", "two", "three"]);
    let told = |words: &[&str]| {
        let ran = ours(&broker, words);
        assert_eq!(ran.code, 0, "{words:?}: {ran:?}");
        ran.out
    };
    let peeked = told(&["-q", "peek", "q", "--limit", "2"]);
    let payloads: Vec<&str> = peeked
        .lines()
        .filter_map(|line| line.split('\t').next_back())
        .collect();
    assert_eq!(payloads, ["one", "two"], "{peeked}");
    let found = told(&["search", "q", "--text", "hre", "--formatter", "json"]);
    let found: serde_json::Value = serde_json::from_str(&found).unwrap();
    assert_eq!(
        (&found["payload"], &found["redelivered"]),
        (&"three".into(), &false.into())
    );
    assert_eq!(
        told(&["copy", "q", "other", "--limit", "1"]),
        "1 messages copied\n"
    );
    assert_eq!(told(&["move", "q", "other"]), "3 messages moved\n");
    assert_eq!(broker.quiet("list_queues name messages -s"), "other\t4\nq\t0\n");
    assert_eq!(
        told(&["delete_messages", "other", "--limit", "1"]),
        "1 messages deleted\n"
    );
    let back = told(&["redrive", "other", "q"]);
    assert!(
        back.starts_with("done: 3 messages looked at, 3 meant, 3 moved"),
        "{back}"
    );
    assert_eq!(broker.quiet("list_queues name messages -s"), "other\t0\nq\t3\n");
    assert_eq!(ours(&broker, &["delete_messages", "q"]).code, 64);
    let missing = ours(&broker, &["-q", "peek", "no"]);
    assert_eq!(
        (missing.code, missing.err.as_str()),
        (69, "Error:\nno queue 'no' in vhost '/'\n")
    );
}

#[test]
fn scheduled_messages_are_listed_cancelled_and_given_another_time() {
    let broker = Broker::start();
    declare(&broker, "q", "{}");
    let told = |words: &[&str]| {
        let ran = ours(&broker, words);
        assert_eq!(ran.code, 0, "{words:?}: {ran:?}");
        ran.out
    };
    let delays = [("third", 3_600_000), ("first", 1_200_000), ("second", 2_400_000)];
    publish_delayed(&broker, "q", &delays.map(|(body, delay)| (body, Some(delay))));
    let rows = |out: String| -> Vec<(String, String)> {
        let cells = out
            .lines()
            .skip(1)
            .map(|line| line.split('\t').collect::<Vec<_>>());
        cells
            .map(|cells| (cells[0].to_owned(), cells[5].to_owned()))
            .collect()
    };
    let listed = rows(told(&["-q", "list_scheduled", "q"]));
    let bodies: Vec<&str> = listed.iter().map(|(_, body)| body.as_str()).collect();
    assert_eq!(bodies, ["first", "second", "third"]);
    assert_eq!(broker.quiet("list_queues name messages_scheduled -s"), "q\t3\n");
    let page = ours(
        &broker,
        &["list_scheduled", "q", "--limit", "1", "--from", &listed[1].0],
    );
    let more = format!("3 in all, more from {}", listed[2].0);
    assert!(
        page.err.contains(&more) && page.out.contains("second"),
        "{page:?}"
    );
    told(&["retime_scheduled", "q", &listed[2].0, "--due", "1999999999999"]);
    assert_eq!(
        told(&["cancel_scheduled", "q", &listed[0].0]),
        "1 messages cancelled\n"
    );
    let gone = ours(&broker, &["-q", "cancel_scheduled", "q", &listed[0].0]);
    assert_eq!(gone.code, 69, "{gone:?}");
    assert!(gone.err.contains("waits for its time in queue 'q'"), "{gone:?}");
    assert_eq!(
        told(&["cancel_scheduled", "q", "--due-from", "1999999999999"]),
        "1 messages cancelled\n"
    );
    assert_eq!(
        told(&["cancel_scheduled", "q", "--all"]),
        "1 messages cancelled\n"
    );
    for wrong in [
        vec!["cancel_scheduled", "q"],
        vec!["cancel_scheduled", "q", "--all", "--routing-key", "q"],
        vec!["retime_scheduled", "q", "1-1"],
        vec!["list_scheduled", "q", "--limit", "x"],
    ] {
        assert_eq!(ours(&broker, &wrong).code, 64, "{wrong:?}");
    }
    let missing = ours(&broker, &["-q", "list_scheduled", "no", "--exchange"]);
    assert!(
        missing.err.contains("no exchange 'no' in vhost '/'"),
        "{missing:?}"
    );
}
