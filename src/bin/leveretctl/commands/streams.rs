//! Commands about streams, which this broker does not have yet: who calls them learns that, and not that they are unknown.

use crate::{
    call::Call,
    command::{Opt, Spec, switch, value},
    failure::Failure,
    output::Output,
    program::tools::STREAMS,
};

const GROUP: &str = "Streams";
const TRACKING: [Opt; 1] = [switch("tracking", "with its consumers' offsets")];
const PREFERRED: [Opt; 1] = [value("preferred-leader-node", "node", "who leads then")];
const SUPER: [Opt; 7] = [
    value("partitions", "number", "its parts"),
    value("binding-keys", "keys", "their keys"),
    value("max-length-bytes", "size", "bytes that are kept"),
    value("max-age", "age", "how long they are kept"),
    value("stream-max-segment-size-bytes", "size", "bytes of a segment"),
    value("leader-locator", "locator", "who leads"),
    value("initial-cluster-size", "number", "replicas"),
];

const fn spec(name: &'static str, args: &'static str, options: &'static [Opt], about: &'static str) -> Spec {
    Spec {
        name,
        tools: STREAMS,
        group: GROUP,
        args,
        options,
        about,
        run: none_yet,
    }
}

pub(super) static COMMANDS: [Spec; 15] = [
    spec(
        "stream_status",
        "<stream>",
        &TRACKING,
        "State of a stream's replicas",
    ),
    spec(
        "restart_stream",
        "<stream>",
        &PREFERRED,
        "Elects a stream's leader again",
    ),
    spec("add_replica", "<stream> <node>", &[], "Adds a replica"),
    spec("delete_replica", "<stream> <node>", &[], "Deletes a replica"),
    spec(
        "set_stream_retention_policy",
        "<stream> <policy>",
        &[],
        "How long a stream keeps",
    ),
    spec("coordinator_status", "", &[], "State of the coordinator"),
    spec(
        "reset_offset",
        "[<reference>]",
        &[value("stream", "stream", "of which")],
        "Forgets an offset",
    ),
    spec(
        "activate_stream_consumer",
        "",
        &[],
        "Activates a consumer of a group",
    ),
    spec("add_super_stream", "<name>", &SUPER, "Adds a super stream"),
    spec("delete_super_stream", "<name>", &[], "Deletes a super stream"),
    spec(
        "list_stream_connections",
        "[<column>...]",
        &[],
        "Connections of the stream protocol",
    ),
    spec(
        "list_stream_consumers",
        "[<column>...]",
        &[],
        "Consumers of the stream protocol",
    ),
    spec(
        "list_stream_publishers",
        "[<column>...]",
        &[],
        "Publishers of the stream protocol",
    ),
    spec(
        "list_stream_group_consumers",
        "[<column>...]",
        &[],
        "Consumers of a group",
    ),
    spec(
        "list_stream_tracking",
        "[<stream>]",
        &[],
        "Offsets of a stream's consumers",
    ),
];

fn none_yet(_: &mut Call) -> Result<Output, Failure> {
    Err(Failure::unavailable("this broker has no streams yet"))
}
