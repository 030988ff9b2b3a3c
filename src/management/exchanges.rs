//! Exchanges (management-api 3.4, 4.5).

use serde_json::{Value, json};

use crate::broker::{
    definition::{Destination, ExchangeDefinition},
    permission::Verb,
};
use crate::management::{
    answer::{Answer, ApiError},
    bindings,
    call::Call,
    json as amqp_json,
    list::{list, single},
    route::{Level, Route, delete, get, put},
    samples::{self, Field, Range},
};
use crate::server::Subject;

pub(super) static ROUTES: [Route; 7] = [
    get("/exchanges", Level::Vhost, list_all, "All exchanges"),
    get(
        "/exchanges/{vhost}",
        Level::Vhost,
        list_all,
        "The exchanges of a vhost",
    ),
    get("/exchanges/{vhost}/{name}", Level::Vhost, show, "One exchange"),
    put(
        "/exchanges/{vhost}/{name}",
        Level::Vhost,
        declare,
        "Declares an exchange",
    ),
    delete(
        "/exchanges/{vhost}/{name}",
        Level::Vhost,
        remove,
        "Deletes an exchange",
    ),
    get(
        "/exchanges/{vhost}/{name}/bindings/source",
        Level::Vhost,
        as_source,
        "Bindings from an exchange",
    ),
    get(
        "/exchanges/{vhost}/{name}/bindings/destination",
        Level::Vhost,
        as_destination,
        "Bindings to an exchange",
    ),
];

static PUBLISHED: [Field; 2] = [
    Field {
        name: "publish_in",
        places: &[0],
    },
    Field {
        name: "publish_out",
        places: &[1],
    },
];

fn list_all(call: &Call) -> Result<Answer, ApiError> {
    let range = call.ranges()?.msg_rates;
    let mut rows = Vec::new();
    for vhost in call.visible_vhosts() {
        rows.extend(call.handle.exchanges(Some(&vhost)));
    }
    list(
        call,
        rows,
        |exchange| &exchange.name,
        |exchange| render(call, exchange, range),
    )
}

/// The exchange that the path names.
pub(super) fn find(call: &Call) -> Result<ExchangeDefinition, ApiError> {
    let vhost = call.vhost().unwrap_or("/");
    call.handle
        .exchange(vhost, call.exchange("name"))
        .ok_or_else(ApiError::not_found)
}

fn show(call: &Call) -> Result<Answer, ApiError> {
    let exchange = find(call)?;
    let mut object = render(call, &exchange, call.ranges()?.msg_rates);
    if let Value::Object(object) = &mut object {
        object.insert("incoming".to_owned(), json!([]));
        object.insert("outgoing".to_owned(), json!([]));
    }
    Ok(single(call, object))
}

fn render(call: &Call, exchange: &ExchangeDefinition, range: Option<Range>) -> Value {
    let mut object = json!({
        "name": &*exchange.name,
        "vhost": &*exchange.vhost,
        "type": &*exchange.kind,
        "durable": exchange.durable,
        "auto_delete": exchange.auto_delete,
        "internal": exchange.internal,
        "arguments": amqp_json::table(&exchange.arguments),
        "user_who_performed_action": "rmq-internal",
    });
    if &*exchange.kind == "x-delayed-message"
        && let Value::Object(object) = &mut object
    {
        let waiting = call.handle.exchange_scheduled(&exchange.vhost, &exchange.name);
        object.insert("messages_delayed".to_owned(), waiting.into());
    }
    let counts = call.handle.exchange_counts(&exchange.vhost, &exchange.name);
    if let (Some((publish_in, publish_out)), Value::Object(object)) = (counts, &mut object)
        && !call.query.is_true("disable_stats")
    {
        let subject = Subject::Exchange(exchange.vhost.clone(), exchange.name.clone());
        let row = [publish_in, publish_out];
        let stats = samples::with_details(&call.handle, &subject, &PUBLISHED, &row, range);
        object.insert("message_stats".to_owned(), Value::Object(stats));
    }
    object
}

fn declare(call: &Call) -> Result<Answer, ApiError> {
    let object = call.object()?;
    let name = call.exchange("name");
    call.permit(Verb::Configure, name)?;
    let vhost = call.vhost().unwrap_or("/");
    let arguments = amqp_json::arguments(&object)?;
    if call.handle.exchange(vhost, name).is_none() {
        call.permit_argument(&arguments, "alternate-exchange", name)?;
    }
    let created = call.handle.declare_exchange(ExchangeDefinition {
        vhost: vhost.into(),
        // The default exchange is refused in the broker's words.
        name: if name.is_empty() {
            ""
        } else {
            amqp_json::new_name(name)?
        }
        .into(),
        kind: amqp_json::text_field(&object, "type")?.unwrap_or("direct").into(),
        durable: amqp_json::flag(&object, "durable", false)?,
        auto_delete: amqp_json::flag(&object, "auto_delete", false)?,
        internal: amqp_json::flag(&object, "internal", false)?,
        arguments,
    })?;
    Ok(Answer::put(created))
}

fn remove(call: &Call) -> Result<Answer, ApiError> {
    let exchange = find(call)?;
    call.permit(Verb::Configure, &exchange.name)?;
    let if_unused = call.query.is_true("if-unused");
    call.handle
        .delete_exchange(&exchange.vhost, &exchange.name, if_unused)?;
    Ok(Answer::no_content())
}

fn as_source(call: &Call) -> Result<Answer, ApiError> {
    let exchange = find(call)?;
    Ok(bindings::answer(call, |binding| binding.source == exchange.name))
}

fn as_destination(call: &Call) -> Result<Answer, ApiError> {
    let exchange = find(call)?;
    let destination = Destination::Exchange(exchange.name);
    Ok(bindings::answer(call, |binding| {
        binding.destination == destination
    }))
}
