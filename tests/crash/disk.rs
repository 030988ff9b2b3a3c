//! Disks that fail or fill up under a serving broker: what was confirmed is there, nothing else was confirmed, and the broker
//! says what happened and goes on or ends, as the design has it (faults F7, F8, F11).

use std::{
    fs::{self, File},
    io::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use leveret::protocol::method::Method;
use tempfile::TempDir;

use crate::{
    broker::Broker,
    client::{Client, Event},
    damage::declare,
    truth,
};

const QUEUE: &str = "q";
const LEN: usize = 900_000;

fn publish(client: &mut Client, seq: u64) {
    let id = truth::id(0, seq, LEN);
    client.publish("", QUEUE, &truth::properties(&id), &truth::body(&id));
}

/// A client that confirms, and the queue.
fn publisher(address: SocketAddr) -> Client {
    let mut client = Client::open(address).expect("a client");
    client.call(&declare(QUEUE)).expect("a queue");
    client
        .call(&Method::ConfirmSelect { nowait: false })
        .expect("confirms");
    client
}

/// How far a confirm goes; `None` when the connection ended.
fn confirmed(client: &mut Client) -> Option<u64> {
    loop {
        match client.next() {
            Ok(Event::Method(Method::BasicAck { delivery_tag, .. })) => return Some(delivery_tag),
            Ok(Event::Method(Method::ConnectionClose { .. } | Method::BasicNack { .. })) | Err(_) => {
                return None;
            }
            Ok(_) => {}
        }
    }
}

/// Publishes one by one until the broker gives up or all are confirmed. Gives how many were.
fn publish_until_failure(address: SocketAddr, messages: u64) -> u64 {
    let mut client = publisher(address);
    for seq in 0..messages {
        publish(&mut client, seq);
        if client.flush().is_err() || confirmed(&mut client).is_none() {
            return seq;
        }
    }
    messages
}

/// A broker without faults has the first `at_least` messages, and perhaps some more, in order.
fn has(data: &Path, at_least: u64) {
    let broker = Broker::start(data, &[])
        .map_err(|refused| refused.log)
        .expect("a start");
    let mut client = Client::open(broker.address).expect("a client");
    let mut seq = 0;
    while let Some(got) = client.get(QUEUE, true).expect("an answer") {
        assert!(
            got.body == truth::body(&truth::id(0, seq, LEN)),
            "{seq} is another"
        );
        seq += 1;
    }
    assert!(seq >= at_least, "{at_least} were confirmed, {seq} are there");
    broker.terminate();
}

fn directory() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory")
}

/// RocksDB cannot write its tables: noticed without another write, before more is confirmed than the log can bear.
#[test]
fn a_flush_that_fails_behind_the_last_write_ends_the_broker() {
    let dir = directory();
    let fails = [("SHIM_FAIL", "table:1:5".into())];
    let broker = Broker::start(dir.path(), &fails)
        .map_err(|refused| refused.log)
        .expect("a start");
    // More than the memtable of bodies.
    let confirmed = publish_until_failure(broker.address, 45);
    let (status, log) = broker.wait();
    assert_eq!(status.code(), Some(74), "{log}");
    assert!(
        log.contains("the store failed") && log.contains("Input/output error"),
        "{log}"
    );
    assert!(confirmed > 20, "{confirmed}");
    has(dir.path(), confirmed);
}

#[test]
fn a_flush_that_fails_at_the_orderly_end_is_told_and_loses_nothing() {
    let dir = directory();
    let fails = [("SHIM_FAIL", "table:1:5".into())];
    let broker = Broker::start(dir.path(), &fails)
        .map_err(|refused| refused.log)
        .expect("a start");
    let confirmed = publish_until_failure(broker.address, 3);
    assert_eq!(confirmed, 3);
    let (status, log) = broker.stop();
    assert_eq!(status.code(), Some(74), "{log}");
    assert!(log.contains("Input/output error"), "{log}");
    has(dir.path(), 3);
}

/// There is free space that this user may not have: nothing more is confirmed, and the exit code says what is the matter.
#[test]
fn a_quota_that_is_used_up_ends_the_broker_as_a_full_disk_would() {
    const EDQUOT: u32 = 122;
    let dir = directory();
    let fails = [("SHIM_FAIL", format!("wal:40:{EDQUOT}").into())];
    let broker = Broker::start(dir.path(), &fails)
        .map_err(|refused| refused.log)
        .expect("a start");
    let confirmed = publish_until_failure(broker.address, 200);
    let (status, log) = broker.wait();
    assert_eq!(status.code(), Some(75), "{log}");
    assert!(log.contains("quota"), "{log}");
    assert!(confirmed > 0 && confirmed < 200, "{confirmed}");
    has(dir.path(), confirmed);
}

/// A small tmpfs, unmounted when dropped. RocksDB goes on only when there is room for a memtable, 64 MiB. `None` where mounting is not allowed.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let dir = directory();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=256m", "tmpfs"])
            .arg(dir.path())
            .output();
        mounted
            .is_ok_and(|output| output.status.success())
            .then_some(Self(dir))
    }

    /// Leaves no byte free.
    fn fill(&self) -> PathBuf {
        let path = self.0.path().join("ballast");
        let mut file = File::create(&path).expect("a file");
        while file.write_all(&[0; 4096]).is_ok() {}
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(self.0.path()).status();
        assert!(
            unmounted.is_ok_and(|status| status.success()) || thread::panicking(),
            "{} stays mounted",
            self.0.path().display()
        );
    }
}

#[test]
fn a_full_disk_holds_confirms_back_until_there_is_room() {
    let Some(disk) = SmallDisk::mount() else {
        println!("SKIPPED: mounting a tmpfs is not allowed here");
        return;
    };
    let data = disk.0.path().join("data");
    let mut broker = Broker::start(&data, &[])
        .map_err(|refused| refused.log)
        .expect("a start");
    let address = broker.address;
    let ballast = disk.fill();
    let (sent, through) = (AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        let publishing = scope.spawn(|| {
            let mut client = publisher(address);
            // RocksDB's log has room ahead; in the end the disk is full, and this waits for a confirm.
            for seq in 0..60 {
                publish(&mut client, seq);
                client.flush().expect("the socket");
                sent.store(seq + 1, Ordering::SeqCst);
                let tag = confirmed(&mut client).expect("a confirm, however late");
                through.store(tag, Ordering::SeqCst);
                if ballast.exists() {
                    continue;
                }
                return;
            }
        });
        broker.says("the disk is full: commits wait");
        let (sent, confirmed) = (sent.load(Ordering::SeqCst), through.load(Ordering::SeqCst));
        assert_eq!(sent, confirmed + 1, "what does not fit is not confirmed");
        // Others are served from memory.
        let mut reader = Client::open(address).expect("a client");
        if confirmed > 0 {
            let got = reader.get(QUEUE, false).expect("an answer");
            assert!(got.is_some_and(|got| got.body == truth::body(&truth::id(0, 0, LEN))));
        }
        drop(reader);
        fs::remove_file(&ballast).expect("room");
        publishing.join().expect("no panic");
    });
    broker.says("the disk has room again");
    broker.kill();
    // A crash right behind it finds all that was confirmed.
    has(&data, through.load(Ordering::SeqCst));
}
