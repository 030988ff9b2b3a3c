//! Encrypted values of a configuration: RabbitMQ's tools make them, this broker has none.

use crate::{
    call::Call,
    command::{Opt, Spec, switch, value},
    failure::Failure,
    output::Output,
    program::tools::CTL,
};

const OPTIONS: [Opt; 6] = [
    value("cipher", "cipher", "not used"),
    value("hash", "hash", "not used"),
    value("iterations", "number", "not used"),
    switch("list-ciphers", "not used"),
    switch("list-hashes", "not used"),
    switch("decode", "not used"),
];

const fn spec(name: &'static str, about: &'static str) -> Spec {
    Spec {
        name,
        tools: CTL,
        group: "Configuration and Environment",
        args: "[<value>] [<passphrase>]",
        options: &OPTIONS,
        about,
        run: no_encryption,
    }
}

pub(super) static COMMANDS: [Spec; 3] = [
    spec(
        "encode",
        "This broker's settings are not encrypted: says where secrets go",
    ),
    spec(
        "decode",
        "This broker's settings are not encrypted: says where secrets go",
    ),
    spec(
        "encrypt_conf",
        "This broker's settings are not encrypted: says where secrets go",
    ),
];

fn no_encryption(_: &mut Call) -> Result<Output, Failure> {
    Err(Failure::unavailable(
        "this broker reads no encrypted settings. Secrets go into environment variables (LEVERET_AUTH__DEFAULT_PASSWORD), \
         which systemd and container runtimes fill from their own stores, or into a file that only the broker's user can read",
    ))
}
