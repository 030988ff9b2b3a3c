//! What is done to queues, and what their replicas would need on more nodes than one.

use serde_json::{Map, Value};

use crate::{
    call::Call,
    client::segment,
    command::{Spec, switch, value},
    failure::{Failure, exit},
    output::{Output, Table},
    program::tools::{CTL, HEALTH_OF_QUEUES, QUEUES},
};

const GROUP: &str = "Queues";

pub(super) static COMMANDS: [Spec; 11] = [
    Spec {
        name: "delete_queue",
        tools: CTL,
        group: GROUP,
        args: "<queue_name>",
        options: &[
            switch("if-empty", "only when it has no ready messages").short('e'),
            switch("if-unused", "only when it has no consumers").short('u'),
            switch("force", "accepted for RabbitMQ's sake"),
        ],
        about: "Deletes a queue",
        run: delete,
    },
    Spec {
        name: "purge_queue",
        tools: CTL,
        group: GROUP,
        args: "<queue>",
        options: &[],
        about: "Purges a queue (removes all ready messages in it)",
        run: purge,
    },
    Spec {
        name: "rebalance",
        tools: QUEUES,
        group: GROUP,
        args: "<type>",
        options: &[
            value("vhost-pattern", "pattern", "accepted for RabbitMQ's sake"),
            value("queue-pattern", "pattern", "accepted for RabbitMQ's sake"),
        ],
        about: "Re-balances leaders of queues across nodes: there is one",
        run: rebalance,
    },
    Spec {
        name: "quorum_status",
        tools: HEALTH_OF_QUEUES,
        group: GROUP,
        args: "<queue>",
        options: &[],
        about: "Displays the members of a quorum queue",
        run: quorum_status,
    },
    Spec {
        name: "grow",
        tools: QUEUES,
        group: GROUP,
        args: "<node> <strategy>",
        options: &[value("membership", "membership", "accepted for RabbitMQ's sake")],
        about: "Adds members to quorum queues: there is one node",
        run: replicas,
    },
    Spec {
        name: "shrink",
        tools: QUEUES,
        group: GROUP,
        args: "<node>",
        options: &[],
        about: "Removes members from quorum queues: there is one node",
        run: replicas,
    },
    Spec {
        name: "add_member",
        tools: QUEUES,
        group: GROUP,
        args: "<queue> <node>",
        options: &[value("membership", "membership", "accepted for RabbitMQ's sake")],
        about: "Adds a member to a quorum queue: there is one node",
        run: replicas,
    },
    Spec {
        name: "delete_member",
        tools: QUEUES,
        group: GROUP,
        args: "<queue> <node>",
        options: &[],
        about: "Removes a member from a quorum queue: there is one node",
        run: replicas,
    },
    Spec {
        name: "reclaim_quorum_memory",
        tools: HEALTH_OF_QUEUES,
        group: GROUP,
        args: "<queue>",
        options: &[],
        about: "Memory is given back without being asked: does nothing",
        run: nothing_to_do,
    },
    Spec {
        name: "sync_queue",
        tools: CTL,
        group: GROUP,
        args: "<queue>",
        options: &[],
        about: "Classic queue mirroring does not exist any more: says so",
        run: not_mirrored,
    },
    Spec {
        name: "cancel_sync_queue",
        tools: CTL,
        group: GROUP,
        args: "<queue>",
        options: &[],
        about: "Nothing is synchronised, because classic queue mirroring does not exist any more",
        run: no_synchronisation,
    },
];

fn path(call: &Call, queue: &str) -> String {
    format!("/queues/{}/{}", segment(call.vhost()), segment(queue))
}

fn delete(call: &mut Call) -> Result<Output, Failure> {
    let queue = call.arg("queue_name").to_owned();
    let (empty, unused) = (call.switch("if-empty"), call.switch("if-unused"));
    let mut conditions = Vec::new();
    if empty {
        conditions.push("if queue is empty ");
    }
    if unused {
        conditions.push("if queue is unused ");
    }
    call.banner(format!(
        "Deleting queue '{queue}' on vhost '{}' {}...",
        call.vhost(),
        conditions.join("and ")
    ));
    let path = path(call, &queue);
    let usage = |text: &str| Failure::new(exit::USAGE, text);
    let known = call.client.get(&path).map_err(|failure| {
        if failure.is_missing() {
            usage("Queue not found")
        } else {
            failure
        }
    })?;
    let count = |key: &str| known.get(key).and_then(Value::as_u64).unwrap_or(0);
    let ready = count("messages_ready");
    call.client
        .delete(&format!("{path}?if-empty={empty}&if-unused={unused}"))
        .map_err(|failure| match &failure.reason {
            Some(refusal) if refusal.status == 404 => usage("Queue not found"),
            Some(refusal) if refusal.reason.contains("not empty") => usage("Queue is not empty"),
            Some(refusal) if refusal.reason.contains("in use") => usage("Queue is in use"),
            _ => failure,
        })?;
    let text = format!("Queue was successfully deleted with {ready} ready messages");
    Ok(Output::Remark(text, Map::new()))
}

fn purge(call: &mut Call) -> Result<Output, Failure> {
    let queue = call.arg("queue").to_owned();
    call.banner(format!("Purging queue '{queue}' in vhost '{}' ...", call.vhost()));
    let purged = call.client.delete(&format!("{}/contents", path(call, &queue)));
    purged.map_err(not_found)?;
    Ok(Output::Done { node: call.node() })
}

fn not_found(failure: Failure) -> Failure {
    if failure.is_missing() {
        Failure::unavailable("not_found")
    } else {
        failure
    }
}

fn rebalance(call: &mut Call) -> Result<Output, Failure> {
    let kind = call.arg("type").to_owned();
    if !["all", "classic", "quorum", "stream"].contains(&kind.as_str()) {
        let text = format!("type {kind} is not supported. Try one of all, classic, quorum.");
        return Err(Failure::unavailable(text));
    }
    call.banner(format!("Re-balancing leaders of {kind} queues..."));
    let queues = call.client.list("/queues?disable_stats=true")?;
    let quorum = |queue: &&Value| queue.get("type").and_then(Value::as_str) == Some("quorum");
    let count = queues.iter().filter(quorum).count();
    let row = vec![call.node().into(), count.into(), 0.into()];
    let columns = [
        "Node name",
        "Number of quorum queues",
        "Number of replicated classic queues",
    ];
    Ok(Table::new(&columns, vec![row]).into())
}

fn quorum_status(call: &mut Call) -> Result<Output, Failure> {
    let (queue, node) = (call.arg("queue").to_owned(), call.node());
    call.banner(format!("Status of quorum queue {queue} on node {node} ..."));
    let path = format!(
        "/queues/quorum/{}/{}/status",
        segment(call.vhost()),
        segment(&queue)
    );
    let members = call.client.list(&path).map_err(|failure| match &failure.reason {
        Some(refusal) if refusal.reason == "not_a_quorum_queue" => {
            Failure::unavailable("Cannot get quorum status of a classic queue")
        }
        _ => not_found(failure),
    })?;
    let columns = [
        "Node Name",
        "Raft State",
        "Membership",
        "Last Log Index",
        "Last Written",
        "Last Applied",
        "Commit Index",
        "Snapshot Index",
        "Term",
        "Machine Version",
    ];
    let rows = members.iter().map(|member| {
        let cell = |column: &&str| member.get(*column).cloned().unwrap_or_default();
        columns.iter().map(cell).collect()
    });
    Ok(Table::new(&columns, rows.collect()).into())
}

fn replicas(_: &mut Call) -> Result<Output, Failure> {
    let text = "there is only one node: members of quorum queues cannot be added or removed";
    Err(Failure::unavailable(text))
}

fn nothing_to_do(call: &mut Call) -> Result<Output, Failure> {
    let queue = call.arg("queue").to_owned();
    call.client.get(&path(call, &queue)).map_err(not_found)?;
    Ok(Output::Done { node: call.node() })
}

fn not_mirrored(call: &mut Call) -> Result<Output, Failure> {
    let queue = call.arg("queue").to_owned();
    call.banner(format!(
        "Synchronising queue '{queue}' in vhost '{}' ...",
        call.vhost()
    ));
    call.client.get(&path(call, &queue)).map_err(not_found)?;
    Err(Failure::unavailable("not_mirrored"))
}

/// As in RabbitMQ, where no queue is being synchronised either.
fn no_synchronisation(call: &mut Call) -> Result<Output, Failure> {
    let queue = call.arg("queue").to_owned();
    call.banner(format!(
        "Stopping synchronising queue '{queue}' in vhost '{}' ...",
        call.vhost()
    ));
    call.client.get(&path(call, &queue)).map_err(not_found)?;
    Ok(Output::sentence("not_syncing"))
}
