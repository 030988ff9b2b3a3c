//! connection.start and who may come in.

use crate::{
    broker::{Broker, Canary, shared},
    bytes::{Args, CONNECTION_START, CONNECTION_TUNE, Fields, PROTOCOL, entry, nested_entry, text_entry},
    peer::{Close, Peer, start_ok},
};

const TELL_ME: &str = "authentication_failure_close";

fn refused(mechanism: &str) -> Close {
    let text = format!(
        "ACCESS_REFUSED - Login was refused using authentication mechanism {mechanism}. For details see the broker \
         logfile."
    );
    Close {
        code: 403,
        text,
        id: (0, 0),
    }
}

/// The fields of connection.start: server properties and mechanisms.
fn start(peer: &mut Peer) -> (Vec<u8>, String) {
    peer.send(PROTOCOL);
    let payload = peer.expect(0, CONNECTION_START);
    let mut fields = Fields(&payload);
    fields.short();
    let properties = fields.longstr().to_vec();
    (properties, String::from_utf8(fields.longstr().to_vec()).unwrap())
}

/// Proves: CON-007, CON-008, CON-009
#[test]
fn start_tells_who_we_are_and_what_we_can() {
    let (properties, mechanisms) = start(&mut Peer::connect(shared()));
    let mut names: Vec<&str> = mechanisms.split(' ').collect();
    names.sort_unstable();
    assert_eq!(
        names,
        ["AMQPLAIN", "PLAIN"],
        "and no ANONYMOUS: it is not configured"
    );
    let mut fields = Fields(&properties);
    let (mut keys, mut capabilities) = (Vec::new(), Vec::new());
    while !fields.is_empty() {
        let key = fields.str();
        let tag = fields.octet();
        let value = fields.longstr();
        match (&*key, tag) {
            ("capabilities", b'F') => capabilities = value.to_vec(),
            ("product", b'S') => assert_eq!(value, b"RabbitMQ"),
            ("version", b'S') => {
                let text = str::from_utf8(value).unwrap();
                let numbers: Vec<u32> = text.split('.').map(|part| part.parse().unwrap()).collect();
                assert!(numbers.len() == 3 && numbers[0] >= 4, "{text}");
            }
            (_, b'S') => assert!(!value.is_empty(), "{key}"),
            other => panic!("{other:?}"),
        }
        keys.push(key);
    }
    assert!(keys.is_sorted(), "{keys:?}");
    for key in [
        "cluster_name",
        "copyright",
        "information",
        "platform",
        "product",
        "version",
    ] {
        assert!(keys.iter().any(|known| known == key), "{key} in {keys:?}");
    }
    let mut fields = Fields(&capabilities);
    let mut able = Vec::new();
    while !fields.is_empty() {
        able.push(fields.str());
        assert_eq!((fields.octet(), fields.octet()), (b't', 1));
    }
    able.sort_unstable();
    let expected = [
        "authentication_failure_close",
        "basic.nack",
        "connection.blocked",
        "consumer_cancel_notify",
        "consumer_priorities",
        "direct_reply_to",
        "exchange_exchange_bindings",
        "per_consumer_qos",
        "publisher_confirms",
    ];
    assert_eq!(able, expected);
}

fn amqplain(entries: &[Vec<u8>]) -> Vec<u8> {
    entries.concat()
}

/// Proves: CON-010, CON-012
#[test]
fn plain_and_amqplain_log_in() {
    let text = |key, value| text_entry(key, value);
    let octets = |key, value: &[u8]| entry(key, b'x', Args::new().longstr(value).as_ref());
    let rows: [(&[u8], Vec<u8>); 4] = [
        (b"PLAIN", b"\0guest\0guest".to_vec()),
        (
            b"AMQPLAIN",
            amqplain(&[text("LOGIN", "guest"), text("PASSWORD", "guest")]),
        ),
        (
            b"AMQPLAIN",
            amqplain(&[octets("PASSWORD", b"guest"), octets("LOGIN", b"guest")]),
        ),
        (
            b"AMQPLAIN",
            amqplain(&[
                text("MORE", "ignored"),
                text("LOGIN", "guest"),
                text("PASSWORD", "guest"),
            ]),
        ),
    ];
    for (mechanism, response) in rows {
        let mut peer = Peer::connect(shared());
        peer.log_in(&[TELL_ME], mechanism, &response);
        peer.tune();
    }
}

/// Proves: CON-011, CON-013, CON-016, H6
#[test]
fn responses_that_make_no_sense_end_in_silence() {
    let mut canary = Canary::new(shared());
    let login = text_entry("LOGIN", "guest");
    let rows: Vec<(&[u8], Vec<u8>)> = vec![
        (b"PLAIN", b"admin\0guest\0guest".to_vec()),
        (b"PLAIN", b"\0guest\0guest\0more".to_vec()),
        (b"PLAIN", b"\0guest\0guest\0".to_vec()),
        (b"PLAIN", b"\0guest".to_vec()),
        (b"PLAIN", b"guest".to_vec()),
        (b"PLAIN", Vec::new()),
        (b"PLAIN", vec![0; 5000]),
        (b"PLAIN", b"\0\xff\xfe\0guest".to_vec()),
        (b"AMQPLAIN", login.clone()),
        (
            b"AMQPLAIN",
            [login.clone(), entry("PASSWORD", b'I', &[0, 0, 0, 1])].concat(),
        ),
        (b"AMQPLAIN", b"\0guest\0guest".to_vec()),
        (
            b"AMQPLAIN",
            [&login[..], b"\x08PASSWORDS\xff\xff\xff\xffguest"].concat(),
        ),
        (b"AMQPLAIN", Vec::new()),
        (b"ANONYMOUS", b"trace".to_vec()),
        (b"EXTERNAL", Vec::new()),
        (b"RABBIT-CR-DEMO", b"guest".to_vec()),
        (b"plain", b"\0guest\0guest".to_vec()),
        (b"", b"\0guest\0guest".to_vec()),
        (b"PL\xc3\x84IN", b"\0guest\0guest".to_vec()),
        (b"\xff\xff", b"\0guest\0guest".to_vec()),
    ];
    for (mechanism, response) in rows {
        let mut peer = Peer::connect(shared());
        peer.log_in(&[TELL_ME], mechanism, &response);
        assert_eq!(peer.rest(), b"", "{mechanism:?} {response:?}");
        canary.sings();
    }
}

/// Proves: CON-014, CON-015, CON-017, CON-018, H5
#[test]
fn a_wrong_name_a_wrong_password_and_none_are_told_apart_by_nobody() {
    let mut canary = Canary::new(shared());
    let rows: [&[u8]; 4] = [b"\0guest\0wrong", b"\0nobody\0guest", b"\0guest\0", b"\0\0"];
    for response in rows {
        let mut peer = Peer::connect(shared());
        peer.log_in(&[TELL_ME], b"PLAIN", response);
        assert_eq!(peer.expect_connection_close(), refused("PLAIN"), "{response:?}");
        let mut peer = Peer::connect(shared());
        peer.log_in(&[], b"PLAIN", response);
        assert_eq!(peer.rest(), b"", "nobody asked to be told: {response:?}");
        canary.sings();
    }
    let mut peer = Peer::connect(shared());
    let response = amqplain(&[text_entry("LOGIN", "guest"), text_entry("PASSWORD", "wrong")]);
    peer.log_in(&[TELL_ME], b"AMQPLAIN", &response);
    assert_eq!(peer.expect_connection_close(), refused("AMQPLAIN"));
}

/// Proves: CON-018
#[test]
fn a_user_without_a_password_cannot_come_in_with_none() {
    let broker = Broker::start(|options| {
        options.access.default_user = "empty".to_owned();
        options.access.default_password = String::new();
        options.access.loopback_users.clear();
    });
    let mut peer = Peer::connect(broker.address());
    peer.log_in(&[TELL_ME], b"PLAIN", b"\0empty\0");
    assert_eq!(peer.expect_connection_close(), refused("PLAIN"));
}

/// Proves: CON-020
#[test]
fn anonymous_comes_in_as_the_configured_user_when_there_is_one() {
    let broker = Broker::start(|options| options.anonymous = Some(("guest".to_owned(), b"guest".to_vec())));
    let mut peer = Peer::connect(broker.address());
    let (_, mechanisms) = start(&mut peer);
    assert!(
        mechanisms.split(' ').any(|name| name == "ANONYMOUS"),
        "{mechanisms}"
    );
    peer.send(&start_ok(&[], b"ANONYMOUS", b"whatever"));
    peer.expect(0, CONNECTION_TUNE);
    // Whoever configures a user who cannot log in has no anonymous access, and is told so like any other.
    let broker = Broker::start(|options| options.anonymous = Some(("guest".to_owned(), b"wrong".to_vec())));
    let mut peer = Peer::connect(broker.address());
    peer.log_in(&[TELL_ME], b"ANONYMOUS", b"");
    assert_eq!(peer.expect_connection_close(), refused("ANONYMOUS"));
}

/// Proves: CON-023, H7
#[test]
fn client_properties_of_any_shape_are_taken_and_capabilities_only_from_a_table() {
    let mut canary = Canary::new(shared());
    let not_a_table = text_entry("capabilities", TELL_ME);
    let not_true = nested_entry("capabilities", b'F', &text_entry(TELL_ME, "yes"));
    for properties in [not_a_table, not_true] {
        let mut peer = Peer::connect(shared());
        peer.send(PROTOCOL);
        peer.expect(0, CONNECTION_START);
        peer.send(&start_ok(&properties, b"PLAIN", b"\0guest\0wrong"));
        assert_eq!(peer.rest(), b"", "it cannot be told");
    }
    let mut deep = Vec::new();
    for _ in 0..60 {
        deep = nested_entry("t", b'F', &deep);
    }
    let taken: [Vec<u8>; 5] = [
        Vec::new(),
        text_entry("connection_name", &"ü".repeat(3000)),
        text_entry("connection_name", "<b>\u{202e}\n\0../../etc/passwd"),
        entry("connection_name", b'V', &[]),
        deep,
    ];
    for properties in taken {
        let mut peer = Peer::connect(shared());
        peer.send(PROTOCOL);
        peer.expect(0, CONNECTION_START);
        peer.send(&start_ok(&properties, b"PLAIN", b"\0guest\0guest"));
        peer.expect(0, CONNECTION_TUNE);
        canary.sings();
    }
    let mut deeper = Vec::new();
    for _ in 0..400 {
        deeper = nested_entry("", b'F', &deeper);
    }
    let refused: [Vec<u8>; 3] = [deeper, entry("x", b'?', &[]), b"\x01xS\xff\xff\xff\xff".to_vec()];
    for properties in refused {
        let mut peer = Peer::connect(shared());
        peer.send(PROTOCOL);
        peer.expect(0, CONNECTION_START);
        peer.send(&start_ok(&properties, b"PLAIN", b"\0guest\0guest"));
        assert_eq!(peer.rest(), b"", "before login there is no close");
        canary.sings();
    }
}

/// Proves: H5
#[test]
fn an_address_that_fails_too_often_is_cut_off_while_others_come_in() {
    let broker = Broker::start(|options| options.limits.login_failures_per_minute = 3);
    let guess = |host| {
        let mut peer = Peer::connect_from(broker.address(), host);
        peer.log_in(&[TELL_ME], b"PLAIN", b"\0guest\0wrong");
        peer
    };
    for _ in 0..3 {
        assert_eq!(guess(2).expect_connection_close(), refused("PLAIN"));
    }
    assert_eq!(guess(2).rest(), b"", "cut off unheard");
    let mut right = Peer::connect_from(broker.address(), 2);
    right.log_in(&[TELL_ME], b"PLAIN", b"\0guest\0guest");
    assert_eq!(
        right.rest(),
        b"",
        "the right password is not looked at either: it may have been guessed"
    );
    let mut neighbour = Peer::connect_from(broker.address(), 3);
    neighbour.log_in(&[], b"PLAIN", b"\0guest\0guest");
    neighbour.tune();
}

/// Proves: CON-022
#[test]
fn a_challenge_is_answered_with_the_password() {
    let broker = Broker::start(|options| options.challenge = true);
    let (_, mechanisms) = start(&mut Peer::connect(broker.address()));
    assert!(mechanisms.split(' ').any(|name| name == "RABBIT-CR-DEMO"));
    let ask = |answer: &[u8]| {
        let mut peer = Peer::connect(broker.address());
        peer.log_in(&[TELL_ME], b"RABBIT-CR-DEMO", b"guest");
        let challenge = peer.expect(0, (10, 20));
        assert_eq!(Fields(&challenge).longstr(), b"Please tell me your password");
        peer.method(0, (10, 21), Args::new().longstr(answer));
        peer
    };
    ask(b"My password is guest").tune();
    let close = ask(b"My password is wrong").expect_connection_close();
    assert_eq!(close, refused("RABBIT-CR-DEMO"));
    assert_eq!(ask(b"guest").rest(), b"", "no such answer");
}
