//! Policies and operator policies.

use serde_json::{Value, json};

use crate::{
    call::Call,
    client::segment,
    command::{Opt, Spec, switch, value},
    commands::vhosts,
    failure::{Failure, exit},
    output::{Output, Table},
    program::tools::{BOTH, CTL},
};

const GROUP: &str = "Policies";

const SETTING: [Opt; 2] = [
    value(
        "priority",
        "priority",
        "the highest of those that match an object applies",
    ),
    value(
        "apply-to",
        "queues|classic_queues|quorum_queues|streams|exchanges|all",
        "what kind of objects it applies to",
    ),
];

pub(super) static COMMANDS: [Spec; 7] = [
    Spec {
        name: "set_policy",
        tools: CTL,
        group: GROUP,
        args: "<name> <pattern> <definition>",
        options: &SETTING,
        about: "Sets or updates a policy",
        run: set,
    },
    Spec {
        name: "clear_policy",
        tools: CTL,
        group: GROUP,
        args: "<name>",
        options: &[],
        about: "Clears (removes) a policy",
        run: clear,
    },
    Spec {
        name: "list_policies",
        tools: BOTH,
        group: GROUP,
        args: "",
        options: &[],
        about: "Lists all policies in a virtual host",
        run: list,
    },
    Spec {
        name: "set_operator_policy",
        tools: CTL,
        group: GROUP,
        args: "<name> <pattern> <definition>",
        options: &SETTING,
        about: "Sets an operator policy that overrides a subset of arguments in user policies",
        run: set_operator,
    },
    Spec {
        name: "clear_operator_policy",
        tools: CTL,
        group: GROUP,
        args: "<name>",
        options: &[],
        about: "Clears an operator policy",
        run: clear_operator,
    },
    Spec {
        name: "list_operator_policies",
        tools: BOTH,
        group: GROUP,
        args: "",
        options: &[],
        about: "Lists operator policy overrides for a virtual host",
        run: list_operator,
    },
    Spec {
        name: "list_policies_that_match",
        tools: BOTH,
        group: GROUP,
        args: "<object>",
        options: &[switch("exchange", "the object is an exchange, not a queue")],
        about: "The policy that is in force on a queue or exchange",
        run: matching,
    },
];

fn path(call: &Call, kind: &str) -> String {
    format!("/{kind}/{}/{}", segment(call.vhost()), segment(call.arg("name")))
}

fn put(call: &mut Call, kind: &str, called: &str) -> Result<Output, Failure> {
    let (name, pattern) = (call.arg("name").to_owned(), call.arg("pattern").to_owned());
    let priority = call.option("priority").unwrap_or("0").to_owned();
    call.banner(format!(
        "Setting {called} \"{name}\" for pattern \"{pattern}\" to \"{}\" with priority \"{priority}\" for vhost \"{}\" ...",
        call.arg("definition"),
        call.vhost()
    ));
    let number: i64 = priority
        .parse()
        .map_err(|_no_number| Failure::argument(exit::USAGE, "the priority is not a number."))?;
    let body = json!({
        "pattern": pattern,
        "definition": call.json("definition")?,
        "priority": number,
        "apply-to": call.option("apply-to").unwrap_or("all"),
    });
    let vhost = call.vhost().to_owned();
    call.client.put(&path(call, kind), &body).map_err(|failure| {
        if failure.is_missing() {
            vhosts::missing(&vhost)
        } else {
            validation(failure)
        }
    })?;
    Ok(Output::Done { node: call.node() })
}

/// A refusal of the broker's, as RabbitMQ's tools show it.
pub(super) fn validation(mut failure: Failure) -> Failure {
    if let Some(refusal) = failure.reason.as_ref().filter(|refusal| refusal.status == 400) {
        failure.text = format!("Error:\nValidation failed\n\n{}\n", refusal.reason);
    }
    failure
}

fn remove(call: &mut Call, kind: &str, called: &str) -> Result<Output, Failure> {
    let (name, vhost) = (call.arg("name").to_owned(), call.vhost().to_owned());
    call.banner(format!("Clearing {called} \"{name}\" on vhost \"{vhost}\" ..."));
    call.client.delete(&path(call, kind)).map_err(no_parameter)?;
    Ok(Output::Done { node: call.node() })
}

/// Policies and parameters are parameters to RabbitMQ.
pub(super) fn no_parameter(failure: Failure) -> Failure {
    if failure.is_missing() {
        Failure::unavailable("Parameter does not exist")
    } else {
        failure
    }
}

fn rows(call: &Call, kind: &str) -> Result<Output, Failure> {
    let policies = vhosts::of_vhost(call, kind)?;
    let columns = ["vhost", "name", "pattern", "apply-to", "definition", "priority"];
    let rows = policies.iter().map(|policy| {
        let cell = |column: &&str| match policy.get(*column) {
            // JSON within JSON, as RabbitMQ's tools have it.
            Some(definition @ Value::Object(_)) => definition.to_string().into(),
            other => other.cloned().unwrap_or_default(),
        };
        columns.iter().map(cell).collect()
    });
    Ok(Table::new(&columns, rows.collect()).into())
}

fn set(call: &mut Call) -> Result<Output, Failure> {
    put(call, "policies", "policy")
}

fn set_operator(call: &mut Call) -> Result<Output, Failure> {
    put(call, "operator-policies", "operator policy override")
}

fn clear(call: &mut Call) -> Result<Output, Failure> {
    remove(call, "policies", "policy")
}

fn clear_operator(call: &mut Call) -> Result<Output, Failure> {
    remove(call, "operator-policies", "operator policy")
}

fn list(call: &mut Call) -> Result<Output, Failure> {
    call.banner(format!("Listing policies for vhost \"{}\" ...", call.vhost()));
    rows(call, "policies")
}

fn list_operator(call: &mut Call) -> Result<Output, Failure> {
    call.banner(format!(
        "Listing operator policy overrides for vhost \"{}\" ...",
        call.vhost()
    ));
    rows(call, "operator-policies")
}

fn matching(call: &mut Call) -> Result<Output, Failure> {
    let object = call.arg("object").to_owned();
    let kind = if call.switch("exchange") {
        "exchange"
    } else {
        "queue"
    };
    call.banner(format!(
        "Listing policies that match {kind} \"{object}\" in vhost \"{}\" ...",
        call.vhost()
    ));
    let path = format!("/{kind}s/{}/{}", segment(call.vhost()), segment(&object));
    let found = call.client.get(&path).map_err(|failure| {
        if failure.is_missing() {
            Failure::unavailable(format!("no {kind} '{object}' in vhost '{}'", call.vhost()))
        } else {
            failure
        }
    })?;
    let policy = found.get("policy").filter(|policy| !policy.is_null());
    let rows = policy.map(|name| vec![name.clone()]).into_iter().collect();
    Ok(Table::new(&["name"], rows).into())
}
