//! Secrets that clients and operators hand over are found nowhere afterwards: not in the log, the store, the process list,
//! what commands print or what HTTP answers (hostile-input-and-faults H60).

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
};

use crate::broker::Broker;

const RIGHT: &str = "right-Zq8vX1";
const WRONG: &str = "wrong-Kd93mP";
const FRESH: &str = "fresh-Tt5yRw";

#[track_caller]
fn assert_clean(place: &str, bytes: &[u8]) {
    for secret in [RIGHT, WRONG, FRESH] {
        let mut windows = bytes.windows(secret.len());
        assert!(
            !windows.any(|window| window == secret.as_bytes()),
            "{secret} is in {place}"
        );
    }
}

fn assert_files_clean(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            assert_files_clean(&path);
        } else if let Ok(bytes) = fs::read(&path) {
            // A socket is no file.
            assert_clean(&path.display().to_string(), &bytes);
        }
    }
}

fn long(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap();
    [&length.to_be_bytes(), bytes].concat()
}

fn method(channel: u8, ids: [u8; 4], fields: &[u8]) -> Vec<u8> {
    let body = [&ids[..], fields].concat();
    [&[1, 0, channel][..], &long(&body), &[0xCE]].concat()
}

/// start-ok with PLAIN; the client wants to be told why it is refused.
fn login(user: &str, password: &str) -> Vec<u8> {
    let capabilities = [&b"\x1cauthentication_failure_close"[..], b"t\x01"].concat();
    let properties = [&b"\x0ccapabilities"[..], b"F", &long(&capabilities)].concat();
    let response = format!("\0{user}\0{password}");
    let fields = [
        &long(&properties)[..],
        b"\x05PLAIN",
        &long(response.as_bytes()),
        b"\x05en_US",
    ];
    method(0, [0, 10, 0, 11], &fields.concat())
}

/// Opens a connection and says all this; gives what came until the broker hung up or stopped talking.
fn say(broker: &Broker, words: &[Vec<u8>]) -> Vec<u8> {
    let mut socket = TcpStream::connect(broker.amqp).unwrap();
    socket.write_all(b"AMQP\0\0\x09\x01").unwrap();
    socket.write_all(&words.concat()).unwrap();
    let mut heard = Vec::new();
    drop(socket.read_to_end(&mut heard));
    heard
}

fn http(broker: &Broker, path: &str, password: &str) -> Vec<u8> {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let mut socket = TcpStream::connect(broker.http).unwrap();
    let login = STANDARD.encode(format!("planted:{password}"));
    let request = format!("GET {path} HTTP/1.0\r\nAuthorization: Basic {login}\r\n\r\n");
    socket.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).unwrap();
    answer
}

/// Proves: H60
#[test]
fn secrets_are_found_nowhere() {
    let broker = Broker::start();
    assert_eq!(
        broker
            .run_with("rabbitmqctl", &["-q", "add_user", "planted"], RIGHT)
            .code,
        0
    );
    broker.quiet("set_user_tags planted administrator");
    broker.quiet("set_permissions planted .* .* .*");
    // A wrong password, one that is no PLAIN response at all, and one in the wrong place.
    let refused = say(&broker, &[login("planted", WRONG)]);
    assert!(refused.windows(17).any(|window| window == b"Login was refused"));
    say(&broker, &[method(0, [0, 10, 0, 11], &long(WRONG.as_bytes()))]);
    say(&broker, &[login(WRONG, WRONG).split_off(20)]);
    let open = method(0, [0, 10, 0, 40], b"\x01/\0\0");
    let update = method(
        0,
        [0, 10, 0, 70],
        &[&long(FRESH.as_bytes())[..], b"\x03why"].concat(),
    );
    let close = method(0, [0, 10, 0, 50], &[0, 200, 0, 0, 0, 0, 0]);
    let tuned = [&[7, 255][..], &131_072_u32.to_be_bytes(), &[0, 0]].concat();
    let tune = method(0, [0, 10, 0, 31], &tuned);
    let heard = say(&broker, &[login("planted", RIGHT), tune, open, update, close]);
    let update_ok = [0, 10, 0, 71];
    assert!(heard.windows(4).any(|window| window == update_ok), "{heard:?}");
    for (path, password) in [
        ("/api/overview", WRONG),
        ("/api/definitions", RIGHT),
        ("/api/users", RIGHT),
        ("/api/connections", RIGHT),
        ("/metrics", RIGHT),
    ] {
        assert_clean(path, &http(&broker, path, password));
    }
    for line in [
        "environment",
        "status",
        "report",
        "list_connections",
        "list_users",
        "export_definitions -",
    ] {
        let ran = broker.ctl(line);
        assert_clean(line, format!("{} {}", ran.out, ran.err).as_bytes());
    }
    let commands = fs::read(format!("/proc/{}/cmdline", broker.pid())).unwrap();
    assert_clean("the process list", &commands);
    assert_clean("the log", broker.log.lock().unwrap().as_bytes());
    assert_files_clean(broker.dir.path());
}
