//! `*_details` and `message_stats`: rates and samples from the histories that the server keeps (management-api 2.5 to
//! 2.7).

use serde_json::{Map, Value, json};

use crate::management::{answer::ApiError, call::Query};
use crate::server::{Count, Handle, History, Subject, Tally, now_ms};

/// Samples asked for: how far back, and how far apart. Milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    age_ms: u64,
    incr_ms: u64,
}

/// The four pairs of the query.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ranges {
    pub(super) lengths: Option<Range>,
    pub(super) msg_rates: Option<Range>,
    pub(super) data_rates: Option<Range>,
    pub(super) node_stats: Option<Range>,
}

const SAMPLES_MAX: i64 = 500;

impl Ranges {
    pub(super) fn parse(query: &Query) -> Result<Self, ApiError> {
        Ok(Self {
            lengths: range(query, "lengths_age", "lengths_incr")?,
            msg_rates: range(query, "msg_rates_age", "msg_rates_incr")?,
            data_rates: range(query, "data_rates_age", "data_rates_incr")?,
            node_stats: range(query, "node_stats_age", "node_stats_incr")?,
        })
    }
}

/// A pair that is not two integers is ignored.
fn range(query: &Query, age: &str, incr: &str) -> Result<Option<Range>, ApiError> {
    let integer = |key| query.get(key).and_then(|text| text.parse::<i64>().ok());
    let (Some(age), Some(incr)) = (integer(age), integer(incr)) else {
        return Ok(None);
    };
    let invalid = || ApiError::bad_request(format!("Invalid range parameters: age {age}, incr {incr}"));
    if age <= 0 || incr <= 0 || age / incr > SAMPLES_MAX {
        return Err(invalid());
    }
    let millis = |seconds: i64| {
        u64::try_from(seconds)
            .ok()
            .and_then(|seconds| seconds.checked_mul(1000))
    };
    let (Some(age_ms), Some(incr_ms)) = (millis(age), millis(incr)) else {
        return Err(invalid());
    };
    Ok(Some(Range { age_ms, incr_ms }))
}

/// A number with its details: the sum of some places of a row.
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) places: &'static [usize],
}

/// Messages ready, unacked and both stand behind the counts.
pub(super) const LENGTHS: [Field; 3] = [
    Field {
        name: "messages_ready",
        places: &[11],
    },
    Field {
        name: "messages_unacknowledged",
        places: &[12],
    },
    Field {
        name: "messages",
        places: &[13],
    },
];

/// Octets of a vhost stand behind the lengths.
pub(super) const OCTETS: [Field; 2] = [field("recv_oct", &[14]), field("send_oct", &[15])];

const fn field(name: &'static str, places: &'static [usize]) -> Field {
    Field { name, places }
}

const PUBLISH: Field = field("publish", &[Count::Publish as usize]);
const CONFIRM: Field = field("confirm", &[Count::Confirm as usize]);
const RETURN: Field = field("return_unroutable", &[Count::ReturnUnroutable as usize]);
const DROP: Field = field("drop_unroutable", &[Count::DropUnroutable as usize]);
const GET: Field = field("get", &[Count::Get as usize]);
const GET_NO_ACK: Field = field("get_no_ack", &[Count::GetNoAck as usize]);
const GET_EMPTY: Field = field("get_empty", &[Count::GetEmpty as usize]);
const DELIVER: Field = field("deliver", &[Count::Deliver as usize]);
const DELIVER_NO_ACK: Field = field("deliver_no_ack", &[Count::DeliverNoAck as usize]);
const REDELIVER: Field = field("redeliver", &[Count::Redeliver as usize]);
const ACK: Field = field("ack", &[Count::Ack as usize]);
const DELIVER_GET: Field = field(
    "deliver_get",
    &[
        Count::Deliver as usize,
        Count::DeliverNoAck as usize,
        Count::Get as usize,
        Count::GetNoAck as usize,
    ],
);

/// `message_stats` of a queue.
pub(super) static OF_QUEUE: [Field; 9] = [
    PUBLISH,
    GET,
    GET_NO_ACK,
    GET_EMPTY,
    DELIVER,
    DELIVER_NO_ACK,
    DELIVER_GET,
    REDELIVER,
    ACK,
];

/// `message_stats` of a channel, a vhost or the node.
pub(super) static OF_ALL: [Field; 12] = [
    PUBLISH,
    CONFIRM,
    RETURN,
    DROP,
    GET,
    GET_NO_ACK,
    GET_EMPTY,
    DELIVER,
    DELIVER_NO_ACK,
    DELIVER_GET,
    REDELIVER,
    ACK,
];

/// Values with details of one object, gathered under one look at its history.
pub(super) fn with_details(
    handle: &Handle,
    subject: &Subject,
    fields: &[Field],
    row: &[u64],
    range: Option<Range>,
) -> Map<String, Value> {
    let now = now_ms();
    let write = |history: Option<&History>| {
        let mut out = Map::new();
        for Field { name, places } in fields {
            let value = sum_at(places, row);
            out.insert((*name).to_owned(), value.into());
            out.insert(format!("{name}_details"), details(history, places, range, now));
        }
        out
    };
    handle
        .with_history(subject, |history| write(Some(history)))
        .unwrap_or_else(|| write(None))
}

fn sum_at(places: &[usize], row: &[u64]) -> u64 {
    let at = |place: &usize| row.get(*place).copied().unwrap_or(0);
    places.iter().map(at).sum()
}

/// The value of a field in a row.
pub(super) fn sum_of(field: &Field, row: &[u64]) -> u64 {
    sum_at(field.places, row)
}

/// `message_stats`, or nothing before the first message.
pub(super) fn message_stats(
    handle: &Handle,
    subject: &Subject,
    fields: &[Field],
    counts: &Tally,
    range: Option<Range>,
) -> Option<Value> {
    if counts.iter().all(|count| *count == 0) {
        return None;
    }
    Some(Value::Object(with_details(
        handle, subject, fields, counts, range,
    )))
}

/// A row of counts followed by lengths, as histories have it.
pub(super) fn row(counts: &Tally, ready: u64, unacked: u64) -> Vec<u64> {
    let mut row = counts.to_vec();
    row.extend([ready, unacked, ready + unacked]);
    row
}

#[expect(
    clippy::cast_precision_loss,
    reason = "averages for people; counters beyond 2^53 lose nothing that shows"
)]
fn details(history: Option<&History>, places: &[usize], range: Option<Range>, now: u64) -> Value {
    let rate: f64 = history.map_or(0.0, |history| {
        places.iter().map(|place| history.rate(*place, now)).sum()
    });
    let Some(Range { age_ms, incr_ms }) = range else {
        return json!({"rate": rate});
    };
    let mut samples: Vec<(u64, u64)> = Vec::new();
    for place in places {
        let found = history.map_or(Vec::new(), |history| history.range(*place, age_ms, incr_ms, now));
        if samples.is_empty() {
            samples = found;
        } else {
            for (sum, (_, value)) in samples.iter_mut().zip(found) {
                sum.1 += value;
            }
        }
    }
    let mut details = json!({
        "rate": rate,
        "samples": samples
            .iter()
            .map(|(at, value)| json!({"sample": value, "timestamp": at}))
            .collect::<Vec<_>>(),
    });
    if let (Some(newest), Some(oldest), Value::Object(details)) =
        (samples.first(), samples.last(), &mut details)
        && samples.len() > 1
    {
        let seconds = newest.0.saturating_sub(oldest.0) as f64 / 1000.0;
        let change = newest.1 as f64 - oldest.1 as f64;
        let sum: f64 = samples.iter().map(|(_, value)| *value as f64).sum();
        details.insert("avg_rate".to_owned(), json!(change / seconds.max(0.001)));
        details.insert("avg".to_owned(), json!(sum / samples.len() as f64));
    }
    details
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_ignored_or_refused() {
        let parse = |query: &str| Ranges::parse(&Query::parse(query)).map(|ranges| ranges.lengths);
        assert_eq!(
            parse("lengths_age=60&lengths_incr=5").unwrap(),
            Some(Range {
                age_ms: 60_000,
                incr_ms: 5000
            })
        );
        assert_eq!(parse("lengths_age=60").unwrap(), None);
        assert_eq!(parse("lengths_age=60&lengths_incr=x").unwrap(), None);
        for bad in [
            "lengths_age=0&lengths_incr=5",
            "lengths_age=60&lengths_incr=-1",
            "lengths_age=6000&lengths_incr=5",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn without_a_history_rates_are_zero_and_samples_empty() {
        assert_eq!(details(None, &[0], None, 0), json!({"rate": 0.0}));
        let range = Some(Range {
            age_ms: 60_000,
            incr_ms: 5000,
        });
        assert_eq!(details(None, &[0], range, 0), json!({"rate": 0.0, "samples": []}));
    }
}
