//! A copy of a serving store, taken under load and started elsewhere (fault F26); and messages taken out of a stopped store
//! and put into another.

use std::{
    fs::File,
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use leveret::protocol::method::Method;

use crate::{
    broker::Broker,
    client::{Client, Event},
    damage::declare,
    truth,
    upgrade::{leveret, text},
};

const QUEUE: &str = "copied";

fn start(data: &Path) -> Broker {
    Broker::start(data, &[])
        .map_err(|refused| refused.log)
        .expect("a start")
}

fn id(seq: u64) -> String {
    // Some are kept apart from their pages.
    truth::id(0, seq, if seq % 50 == 7 { 90_000 } else { 300 })
}

/// Publishes and waits for each confirm, until it is told to stop.
fn publish(broker: &Broker, confirmed: &AtomicU64, stop: &AtomicBool) {
    let mut client = Client::open(broker.address).expect("a client");
    client
        .call(&Method::ConfirmSelect { nowait: false })
        .expect("confirms");
    for seq in 0.. {
        if stop.load(Ordering::SeqCst) {
            return;
        }
        let id = id(seq);
        client.publish("", QUEUE, &truth::properties(&id), &truth::body(&id));
        client.flush().expect("the socket");
        while !matches!(
            client.next().expect("a confirm"),
            Event::Method(Method::BasicAck { .. })
        ) {}
        confirmed.store(seq + 1, Ordering::SeqCst);
    }
}

/// Takes all messages, which must be the first ones in order. Gives how many there are.
fn drain(data: &Path) -> u64 {
    let broker = start(data);
    let mut client = Client::open(broker.address).expect("a client");
    let mut count = 0;
    while let Some(got) = client.get(QUEUE, true).expect("an answer") {
        let id = id(count);
        assert_eq!(got.properties, truth::properties(&id), "{count}");
        assert!(got.body == truth::body(&id), "{id} has another body");
        count += 1;
    }
    broker.kill();
    count
}

#[test]
fn a_copy_under_load_holds_what_was_confirmed_and_goes_elsewhere() {
    let place = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let [data, copy, restored, other] =
        ["data", "copy", "restored", "other"].map(|name| place.path().join(name));
    let broker = start(&data);
    Client::open(broker.address)
        .and_then(|mut client| client.call(&declare(QUEUE)))
        .expect("a queue");
    let (confirmed, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let before = thread::scope(|scope| {
        scope.spawn(|| publish(&broker, &confirmed, &stop));
        let until = |count| {
            while confirmed.load(Ordering::SeqCst) < count {
                thread::sleep(Duration::from_millis(2));
            }
        };
        until(100);
        let before = confirmed.load(Ordering::SeqCst);
        let taken = Command::new(env!("CARGO_BIN_EXE_leveretctl"))
            .args(["-q", "backup"])
            .arg(&copy)
            .env("LEVERET_DATA_DIR", &data)
            .output()
            .expect("the program starts");
        assert!(taken.status.success(), "{taken:?}");
        // It served on meanwhile, and does.
        until(confirmed.load(Ordering::SeqCst) + 50);
        stop.store(true, Ordering::SeqCst);
        before
    });
    broker.kill();

    let back = leveret(&restored, &["restore", &copy.to_string_lossy()]);
    assert!(back.status.success(), "{back:?}");
    let checked = leveret(&restored, &["check"]);
    assert!(checked.status.success(), "{checked:?}");
    assert!(text(&checked.stderr).contains("0 findings"), "{checked:?}");
    // The copy can be taken to a store that has other things in it, too.
    let lines = place.path().join("lines");
    let exported = Command::new(env!("CARGO_BIN_EXE_leveret"))
        .arg("--data-dir")
        .arg(&restored)
        .args(["export", QUEUE])
        .stdout(File::create(&lines).expect("a file"))
        .status()
        .expect("the program starts");
    assert!(exported.success());
    let broker = start(&other);
    Client::open(broker.address)
        .and_then(|mut client| client.call(&declare(QUEUE)))
        .expect("a queue");
    broker.terminate();
    let imported = Command::new(env!("CARGO_BIN_EXE_leveret"))
        .arg("--data-dir")
        .arg(&other)
        .args(["import", QUEUE])
        .stdin(Stdio::from(File::open(&lines).expect("a file")))
        .output()
        .expect("the program starts");
    assert!(imported.status.success(), "{imported:?}");
    let checked = leveret(&other, &["check"]);
    assert!(checked.status.success(), "{checked:?}");

    let count = drain(&restored);
    assert!(
        count >= before,
        "{before} were confirmed before, {count} are in the copy"
    );
    assert_eq!(drain(&other), count);
    // What was confirmed behind the copy is in the original.
    assert!(drain(&data) >= confirmed.load(Ordering::SeqCst));
}
