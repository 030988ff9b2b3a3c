//! Vhosts (management-api 3.5, 4.10).

use serde_json::{Value, json};

use crate::management::{
    answer::{Answer, ApiError},
    call::Call,
    list::{list, single},
    overview,
    route::{Level, Route, get},
    samples::{self, LENGTHS, OF_ALL, Ranges},
};
use crate::server::Subject;

pub(super) static ROUTES: [Route; 2] = [
    get("/vhosts", Level::Any, list_all, "All vhosts"),
    get("/vhosts/{vhost}", Level::Vhost, show, "One vhost"),
];

fn list_all(call: &Call) -> Result<Answer, ApiError> {
    let ranges = call.ranges()?;
    list(
        call,
        call.visible_vhosts(),
        |name| name,
        |name| render(call, name, ranges),
    )
}

fn show(call: &Call) -> Result<Answer, ApiError> {
    let name = call.vhost().unwrap_or("/");
    Ok(single(call, render(call, name, call.ranges()?)))
}

fn render(call: &Call, name: &str, ranges: Ranges) -> Value {
    let mut object = json!({
        "name": name,
        "description": "",
        "tags": [],
        "default_queue_type": "classic",
        "metadata": {"description": "", "tags": [], "default_queue_type": "classic"},
        "tracing": false,
        "protected_from_deletion": false,
        "cluster_state": {call.handle.node_name(): "running"},
    });
    let Value::Object(fields) = &mut object else {
        return object;
    };
    if call.query.is_true("disable_stats") {
        return object;
    }
    let (counts, ready, unacked) = overview::totals(&call.handle, &[name.to_owned()]);
    let subject = Subject::Vhost(name.into());
    let row = samples::row(&counts, ready, unacked);
    fields.extend(samples::with_details(
        &call.handle,
        &subject,
        &LENGTHS,
        &row,
        ranges.lengths,
    ));
    let stats = samples::message_stats(&call.handle, &subject, &OF_ALL, &counts, ranges.msg_rates);
    if let Some(stats) = stats {
        fields.insert("message_stats".to_owned(), stats);
    }
    object
}
