//! All commands, one file per subject with a table of its commands.

mod backup;
mod connections;
mod definitions;
mod difference;
mod doctor;
mod documents;
mod events;
mod explain;
mod flags;
mod foreign;
mod health;
mod limits;
mod lists;
mod log;
mod messages;
mod migrate;
mod node;
mod parameters;
mod permissions;
mod plugins;
mod policies;
mod queues;
mod scheduled;
mod secrets;
mod settings;
mod status;
mod streams;
mod tail;
mod top;
mod users;
mod vhosts;

pub(crate) use documents::bench;
use documents::beside;

use crate::{
    command::Spec,
    failure::{Failure, exit},
    program::Program,
};

/// What the broker says it is to tools that compare versions.
pub(crate) const RABBITMQ_VERSION: &str = "4.3.5";

static TABLES: [&[Spec]; 31] = [
    &node::COMMANDS,
    &status::COMMANDS,
    &health::COMMANDS,
    &users::COMMANDS,
    &permissions::COMMANDS,
    &vhosts::COMMANDS,
    &limits::COMMANDS,
    &policies::COMMANDS,
    &parameters::COMMANDS,
    &lists::COMMANDS,
    &queues::COMMANDS,
    &connections::COMMANDS,
    &definitions::COMMANDS,
    &settings::COMMANDS,
    &log::COMMANDS,
    &secrets::COMMANDS,
    &events::COMMANDS,
    &streams::COMMANDS,
    &foreign::COMMANDS,
    &flags::COMMANDS,
    &plugins::COMMANDS,
    &explain::COMMANDS,
    &doctor::COMMANDS,
    &difference::COMMANDS,
    &backup::COMMANDS,
    &migrate::COMMANDS,
    &documents::COMMANDS,
    &messages::COMMANDS,
    &scheduled::COMMANDS,
    &tail::COMMANDS,
    &top::COMMANDS,
];

/// The commands that a program has.
pub(crate) fn of(program: Program) -> impl Iterator<Item = &'static Spec> {
    TABLES
        .iter()
        .flat_map(|table| table.iter())
        .filter(move |spec| spec.belongs_to(program))
}

pub(crate) fn find(program: Program, name: &str) -> Option<&'static Spec> {
    let name = name.replace('-', "_");
    of(program).find(|spec| spec.name == name)
}

/// As RabbitMQ says it where an argument may not be empty.
fn not_empty(what: &str, value: &str) -> Result<(), Failure> {
    if value.is_empty() {
        let text = format!("Bad argument: {what} cannot be an empty string");
        return Err(Failure::argument(exit::DATA, text));
    }
    Ok(())
}
