//! Dead-lettering, the pure part: what a message that died looks like, where it may not go again (amqp-behaviour 4.7).
//! `server/relay.rs` routes it.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::broker::{
    ids::{Seq, Timestamp},
    message::{Message, MessageParts},
    queue::{Place, settings::DeadLetterRoute},
};
use crate::protocol::{
    field::{FieldTable, FieldValue, ShortString},
    properties::{Properties, PropertyError},
};

/// Why a message died.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// A consumer wanted it neither now nor later.
    Rejected,
    Expired,
    /// The queue was full.
    MaxLength,
    /// It came back too often.
    DeliveryLimit,
    /// It did not die: its delay is over, and the holding queue lets it go.
    Due,
}

impl Reason {
    /// The word in `x-death`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::MaxLength => "maxlen",
            Self::DeliveryLimit => "delivery_limit",
            Self::Due => "due",
        }
    }
}

/// A message that left its queue for its dead-letter exchange.
pub struct DeadLetter {
    pub message: Message,
    pub reason: Reason,
    /// Its place in the queue it died in; 0 when the queue never took it.
    pub seq: Seq,
    pub route: Arc<DeadLetterRoute>,
    /// Where the store keeps it in the queue it died in, until its targets have it.
    pub stored: Option<Place>,
    /// When it was due, if that is how the store keeps it.
    pub due: Timestamp,
}

/// What is published for a dead letter.
pub struct Rewritten {
    pub message: Message,
    /// The keys it is routed by.
    pub keys: Vec<Bytes>,
    deaths: Vec<FieldValue>,
    reason: Reason,
}

impl Rewritten {
    /// Whether it may not go to this queue: it died there before, and no consumer rejected it since. Without this rule a
    /// message would go round for ever.
    pub fn is_cycle(&self, queue: &[u8]) -> bool {
        if self.reason == Reason::Rejected {
            return false;
        }
        for death in &self.deaths {
            let FieldValue::Table(death) = death else { continue };
            if is_text(death, "reason", Reason::Rejected.word().as_bytes()) {
                return false;
            }
            if is_text(death, "queue", queue) {
                return true;
            }
        }
        false
    }
}

/// The message as it is published for the death of `message` in `queue`.
///
/// # Errors
/// When its properties cannot be read, which the publish had checked.
pub fn rewrite(
    message: &Message,
    queue: &str,
    reason: Reason,
    route: &DeadLetterRoute,
    now: Timestamp,
    scratch: &mut Vec<u8>,
) -> Result<Rewritten, PropertyError> {
    let mut properties = Properties::decode(message.properties())?;
    let mut headers = properties.headers.take().unwrap_or_default();
    let expiration = properties.expiration.take();
    let own_keys = message.routing_keys().into_iter().map(Bytes::copy_from_slice);
    let own_keys = own_keys.collect();
    // Only what the broker wrote is a history; a client that publishes what it consumed begins a new one.
    let died_before = message.has_died();
    let mut deaths = match headers.get("x-death") {
        Some(FieldValue::Array(deaths)) if died_before => deaths.clone(),
        _ => Vec::new(),
    };
    note_death(&mut deaths, message, &headers, queue, reason, expiration, now);
    for (what, value) in [
        ("queue", text(queue.as_bytes())),
        ("reason", text(reason.word().as_bytes())),
        ("exchange", text(message.exchange())),
    ] {
        if !died_before {
            headers.insert(format!("x-first-death-{what}").as_str(), value.clone());
        }
        headers.insert(format!("x-last-death-{what}").as_str(), value);
    }
    headers.insert("x-death", FieldValue::Array(deaths.clone()));
    properties.headers = Some(headers.canonical());
    let mut encoded = BytesMut::new();
    properties.encode(&mut encoded);
    let routing_key = route.routing_key.as_deref().unwrap_or(message.routing_key());
    let parts = MessageParts {
        exchange: short(&route.exchange),
        routing_key: short(routing_key),
        properties: &encoded,
        persistent: message.persistent(),
        priority: message.priority(),
    };
    Ok(Rewritten {
        message: message.dead_lettered(&parts, scratch),
        keys: match &route.routing_key {
            Some(key) => vec![key.clone()],
            None => own_keys,
        },
        deaths,
        reason,
    })
}

/// One entry per queue and reason, the latest death first.
fn note_death(
    deaths: &mut Vec<FieldValue>,
    message: &Message,
    headers: &FieldTable,
    queue: &str,
    reason: Reason,
    expiration: Option<ShortString>,
    now: Timestamp,
) {
    let same = deaths.iter().position(|death| {
        matches!(death, FieldValue::Table(death)
            if is_text(death, "queue", queue.as_bytes()) && is_text(death, "reason", reason.word().as_bytes()))
    });
    if let Some(at) = same {
        let mut death = deaths.remove(at);
        if let FieldValue::Table(death) = &mut death {
            let count = death.get("count").and_then(FieldValue::as_integer).unwrap_or(0);
            death.insert("count", FieldValue::I64(count.saturating_add(1)));
        }
        deaths.insert(0, death);
        return;
    }
    let mut death = FieldTable::new();
    if let Some(expiration) = expiration {
        death.insert("original-expiration", text(expiration.as_bytes()));
    }
    death.insert("count", FieldValue::I64(1));
    death.insert("reason", text(reason.word().as_bytes()));
    death.insert("queue", text(queue.as_bytes()));
    death.insert("time", FieldValue::Timestamp(now.seconds()));
    death.insert("exchange", text(message.exchange()));
    let keys = shown_keys(message, headers);
    death.insert(
        "routing-keys",
        FieldValue::Array(keys.into_iter().map(FieldValue::LongString).collect()),
    );
    deaths.insert(0, FieldValue::Table(death));
}

/// The key of the publish and those in CC, which everybody may see.
fn shown_keys(message: &Message, headers: &FieldTable) -> Vec<Bytes> {
    let mut keys = vec![Bytes::copy_from_slice(message.routing_key())];
    if let Some(FieldValue::Array(more)) = headers.get("CC") {
        keys.extend(more.iter().filter_map(|key| match key {
            FieldValue::LongString(key) => Some(key.clone()),
            _ => None,
        }));
    }
    keys
}

fn text(bytes: &[u8]) -> FieldValue {
    FieldValue::LongString(Bytes::copy_from_slice(bytes))
}

fn is_text(table: &FieldTable, key: &str, expected: &[u8]) -> bool {
    table.get(key).and_then(FieldValue::as_str_bytes) == Some(expected)
}

/// The queue that a dead letter left last, and the message as it was published there, its history kept: its next death goes
/// on counting. `None` for what is no dead letter.
pub fn brought_back(message: &Message) -> Option<(String, Message)> {
    if !message.has_died() {
        return None;
    }
    let headers = Properties::decode(message.properties()).ok()?.headers?;
    let Some(FieldValue::Array(deaths)) = headers.get("x-death") else {
        return None;
    };
    let Some(FieldValue::Table(death)) = deaths.first() else {
        return None;
    };
    let bytes = |key: &str| death.get(key).and_then(FieldValue::as_str_bytes);
    let key = match death.get("routing-keys") {
        Some(FieldValue::Array(keys)) => keys.first().and_then(FieldValue::as_str_bytes),
        _ => None,
    };
    let parts = MessageParts {
        exchange: short(bytes("exchange").unwrap_or_default()),
        routing_key: short(key.unwrap_or_default()),
        properties: message.properties(),
        persistent: message.persistent(),
        priority: message.priority(),
    };
    let queue = String::from_utf8(bytes("queue")?.to_vec()).ok()?;
    Some((queue, message.dead_lettered(&parts, &mut Vec::new())))
}

/// What a record has room for. An exchange or key beyond it exists nowhere, so nothing is delivered under the cut name.
fn short(bytes: &[u8]) -> &[u8] {
    bytes.get(..255).unwrap_or(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::sender_selected::BCC;
    use crate::protocol::properties::RawProperties;

    const NOW: Timestamp = Timestamp(1_700_000_000_500);

    fn message(exchange: &str, key: &str, properties: &Properties) -> Message {
        let mut encoded = BytesMut::new();
        properties.encode(&mut encoded);
        let parts = MessageParts {
            exchange: exchange.as_bytes(),
            routing_key: key.as_bytes(),
            properties: &encoded,
            persistent: true,
            priority: 3,
        };
        Message::new(&parts, b"body", &mut Vec::new())
    }

    fn route(key: Option<&'static str>) -> DeadLetterRoute {
        DeadLetterRoute {
            exchange: Bytes::from_static(b"dlx"),
            routing_key: key.map(|key| Bytes::from_static(key.as_bytes())),
            at_least_once: false,
        }
    }

    fn die(message: &Message, queue: &str, reason: Reason) -> Rewritten {
        rewrite(message, queue, reason, &route(None), NOW, &mut Vec::new()).unwrap()
    }

    fn headers(message: &Message) -> FieldTable {
        Properties::decode(message.properties()).unwrap().headers.unwrap()
    }

    fn deaths(message: &Message) -> Vec<FieldTable> {
        let Some(FieldValue::Array(deaths)) = headers(message).get("x-death").cloned() else {
            panic!("no x-death");
        };
        deaths
            .into_iter()
            .map(|death| match death {
                FieldValue::Table(death) => death,
                other => panic!("{other:?}"),
            })
            .collect()
    }

    fn keys_of(table: &FieldTable) -> Vec<String> {
        table
            .iter()
            .map(|(key, _)| key.to_string_lossy().into_owned())
            .collect()
    }

    /// Proves: DLX-003, DLX-004, DLX-005
    #[test]
    fn a_first_death_is_written_down() {
        let properties = Properties {
            expiration: Some("60000".into()),
            ..Properties::default()
        };
        let dead = die(&message("ex", "key", &properties), "q", Reason::Expired);
        assert_eq!(dead.message.exchange(), b"dlx");
        assert_eq!(dead.message.routing_key(), b"key");
        assert_eq!(dead.message.inline_body(), b"body");
        assert_eq!(dead.message.priority(), 3);
        assert!(dead.message.persistent() && dead.message.has_died());
        assert_eq!(
            Properties::decode(dead.message.properties()).unwrap().expiration,
            None
        );
        let history = deaths(&dead.message);
        assert_eq!(history.len(), 1);
        assert_eq!(
            keys_of(&history[0]),
            [
                "original-expiration",
                "count",
                "reason",
                "queue",
                "time",
                "exchange",
                "routing-keys"
            ]
        );
        assert_eq!(history[0].get("original-expiration"), Some(&text(b"60000")));
        assert_eq!(history[0].get("count"), Some(&FieldValue::I64(1)));
        assert_eq!(
            history[0].get("time"),
            Some(&FieldValue::Timestamp(1_700_000_000))
        );
        assert_eq!(history[0].get("exchange"), Some(&text(b"ex")));
        assert_eq!(
            history[0].get("routing-keys"),
            Some(&FieldValue::Array(vec![text(b"key")]))
        );
        for when in ["first", "last"] {
            for (what, value) in [("queue", "q"), ("reason", "expired"), ("exchange", "ex")] {
                let header = format!("x-{when}-death-{what}");
                assert_eq!(
                    headers(&dead.message).get(&header),
                    Some(&text(value.as_bytes())),
                    "{header}"
                );
            }
        }
    }

    /// Proves: DLX-003, DLX-004
    #[test]
    fn later_deaths_count_and_come_first() {
        let first = die(
            &message("ex", "key", &Properties::default()),
            "q",
            Reason::Rejected,
        );
        let second = die(&first.message, "other", Reason::Expired);
        let third = die(&second.message, "q", Reason::Rejected);
        let history = deaths(&third.message);
        let told: Vec<_> = history
            .iter()
            .map(|death| {
                (
                    death.get("queue").unwrap().to_string(),
                    death.get("count").cloned().unwrap(),
                )
            })
            .collect();
        assert_eq!(
            told,
            [
                ("q".to_owned(), FieldValue::I64(2)),
                ("other".to_owned(), FieldValue::I64(1))
            ]
        );
        // What stands in an entry is from its first death.
        assert_eq!(history[0].get("exchange"), Some(&text(b"ex")));
        assert_eq!(
            headers(&third.message).get("x-first-death-exchange"),
            Some(&text(b"ex"))
        );
        assert_eq!(
            headers(&third.message).get("x-last-death-exchange"),
            Some(&text(b"dlx"))
        );
        assert_eq!(
            headers(&third.message).get("x-last-death-queue"),
            Some(&text(b"q"))
        );
    }

    /// Proves: DLX-002, DLX-006
    #[test]
    fn keys_are_kept_or_replaced() {
        let mut headers = FieldTable::new();
        headers.insert("CC", FieldValue::Array(vec![text(b"second")]));
        headers.insert("BCC", FieldValue::Array(vec![text(b"third")]));
        let properties = Properties {
            headers: Some(headers),
            ..Properties::default()
        };
        let original = message("ex", "first", &properties);
        let raw = RawProperties::new(original.properties());
        let mut shown = Vec::new();
        raw.write_without_header(BCC, &mut shown).unwrap();
        let parts = MessageParts {
            exchange: b"ex",
            routing_key: b"first",
            properties: &shown,
            persistent: false,
            priority: 0,
        };
        let original = Message::new_hiding(&parts, raw.header(BCC).unwrap(), b"", &mut Vec::new());
        let dead = die(&original, "q", Reason::Rejected);
        assert_eq!(dead.keys, ["first", "second", "third"]);
        let again = die(&dead.message, "other", Reason::Rejected);
        assert_eq!(
            again.keys,
            ["first", "second", "third"],
            "hidden keys stay with it"
        );
        let told = deaths(&dead.message)[0].get("routing-keys").cloned();
        assert_eq!(
            told,
            Some(FieldValue::Array(vec![text(b"first"), text(b"second")]))
        );
        assert!(self::headers(&dead.message).get("CC").is_some());
        let dead = rewrite(
            &original,
            "q",
            Reason::Rejected,
            &route(Some("new")),
            NOW,
            &mut Vec::new(),
        )
        .unwrap();
        assert_eq!(dead.keys, ["new"]);
        assert_eq!(dead.message.routing_key(), b"new");
    }

    /// Proves: DLX-008
    #[test]
    fn a_history_from_a_client_is_none() {
        let dead = die(&message("", "q", &Properties::default()), "q", Reason::Rejected);
        let again = message("", "q", &Properties::decode(dead.message.properties()).unwrap());
        let dead = die(&again, "q", Reason::Rejected);
        assert_eq!(deaths(&dead.message)[0].get("count"), Some(&FieldValue::I64(1)));
        assert_eq!(
            headers(&dead.message).get("x-first-death-exchange"),
            Some(&text(b""))
        );
    }

    /// Proves: DLX-007
    #[test]
    fn a_cycle_without_a_rejection_ends() {
        let first = die(&message("", "a", &Properties::default()), "a", Reason::Expired);
        assert!(first.is_cycle(b"a") && !first.is_cycle(b"b"));
        let second = die(&first.message, "b", Reason::MaxLength);
        assert!(second.is_cycle(b"a") && second.is_cycle(b"b"));
        let rejected = die(&second.message, "c", Reason::Rejected);
        assert!(!rejected.is_cycle(b"a") && !rejected.is_cycle(b"c"));
        // Since the rejection it died in b only.
        let after = die(&rejected.message, "b", Reason::Expired);
        assert!(after.is_cycle(b"b") && !after.is_cycle(b"a") && !after.is_cycle(b"c"));
    }
}
