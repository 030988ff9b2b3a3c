//! From the words of the command line to a command and its arguments, by clap. What clap refuses is told in the words and
//! with the exit codes of RabbitMQ's tools.

use clap::{
    Arg, ArgAction, ArgMatches, Command,
    error::{ContextKind, ContextValue, ErrorKind},
};

use crate::{
    command::Spec,
    commands,
    failure::{Failure, exit},
    nearest::nearest,
    program::Program,
};

/// Name, short form, name of the value, and meaning of the options that all commands have.
const EVERYWHERE: [(&str, Option<char>, Option<&str>, &str); 18] = [
    (
        "node",
        Some('n'),
        Some("node"),
        "Accepted for RabbitMQ's sake: there is one node",
    ),
    (
        "vhost",
        Some('p'),
        Some("vhost"),
        "The virtual host, for commands that are scoped to one [default: /]",
    ),
    ("quiet", Some('q'), None, "No informational messages"),
    (
        "silent",
        Some('s'),
        None,
        "No informational messages and no table header",
    ),
    (
        "timeout",
        Some('t'),
        Some("seconds"),
        "How long to wait for the broker; `infinity` for ever",
    ),
    ("longnames", Some('l'), None, "Accepted for RabbitMQ's sake"),
    (
        "erlang-cookie",
        None,
        Some("cookie"),
        "Accepted for RabbitMQ's sake, and not used",
    ),
    (
        "formatter",
        None,
        Some("formatter"),
        "table, tsv, pretty_table, csv, json or json_stream",
    ),
    ("printer", None, Some("printer"), "Accepted for RabbitMQ's sake"),
    ("no-table-headers", None, None, "No table header"),
    (
        "table-headers",
        None,
        Some("true|false"),
        "Whether tables have a header",
    ),
    ("pad-to-header", None, None, "Accepted for RabbitMQ's sake"),
    ("script-name", None, Some("name"), "Accepted for RabbitMQ's sake"),
    ("print-stacktrace", None, None, "Accepted for RabbitMQ's sake"),
    ("aliases-file", None, Some("file"), "Accepted for RabbitMQ's sake"),
    (
        "url",
        None,
        Some("url"),
        "A broker elsewhere: http://user:password@host:15672 [env: LEVERETCTL_URL]",
    ),
    (
        "socket",
        None,
        Some("path"),
        "The broker's control socket [env: LEVERETCTL_SOCKET]",
    ),
    (
        "data-dir",
        None,
        Some("dir"),
        "The data directory of the broker, where its control socket is [env: LEVERET_DATA_DIR]",
    ),
];

/// Finds the command and its arguments.
///
/// # Errors
/// Usage errors, code 64.
pub(crate) fn parse(program: Program, words: &[String]) -> Result<(&'static Spec, ArgMatches), Failure> {
    let name = command_name(words).unwrap_or_default();
    let Some(spec) = commands::find(program, name) else {
        return Err(unknown_command(program, name));
    };
    // Only the command that was asked for is built: this program may be a liveness probe.
    let command = build(program, std::iter::once(spec));
    let normal = std::iter::once(program.name().to_owned()).chain(words.iter().map(|word| normal(word)));
    let matches = command
        .try_get_matches_from(normal)
        .map_err(|error| refusal(&error).with_usage(words, &spec.usage(program)))?;
    let (_, own) = matches
        .subcommand()
        .ok_or_else(|| unknown_command(program, name))?;
    Ok((spec, own.clone()))
}

/// A program of these commands, for the parser, completions and man pages.
pub(crate) fn build(program: Program, specs: impl Iterator<Item = &'static Spec>) -> Command {
    let mut command = Command::new(program.name())
        .version(env!("CARGO_PKG_VERSION"))
        .about("Steers a Leveret broker, and stands in for RabbitMQ's command line tools")
        .disable_help_flag(true)
        .disable_help_subcommand(true)
        .disable_version_flag(true)
        .subcommand_required(true);
    for (name, short, value, about) in EVERYWHERE {
        command = command.arg(argument(name, short, value, about).global(true));
    }
    command.subcommands(specs.map(subcommand))
}

fn argument(
    name: &'static str,
    short: Option<char>,
    value: Option<&'static str>,
    about: &'static str,
) -> Arg {
    let mut arg = Arg::new(name).long(name).help(about);
    if name == "formatter" {
        arg = arg.visible_alias("format");
    }
    if let Some(short) = short {
        arg = arg.short(short);
    }
    match value {
        None => arg.action(ArgAction::SetTrue).overrides_with(name),
        Some(value) => arg.action(ArgAction::Set).value_name(value).overrides_with(name),
    }
}

fn subcommand(spec: &'static Spec) -> Command {
    let mut command = Command::new(spec.name)
        .about(spec.about)
        .disable_help_flag(true)
        .disable_version_flag(true);
    for option in spec.options {
        command = command.arg(argument(option.name, option.short, option.value, option.about));
    }
    for positional in spec.positionals() {
        let arg = Arg::new(positional.name)
            .required(positional.required)
            .value_name(positional.name);
        command = command.arg(if positional.many {
            arg.num_args(0..).action(ArgAction::Append)
        } else {
            arg.action(ArgAction::Set)
        });
    }
    command
}

/// RabbitMQ's tools take `--some_option` for `--some-option`.
fn normal(word: &str) -> String {
    if !word.starts_with("--") {
        return word.to_owned();
    }
    match word.split_once('=') {
        Some((name, value)) => format!("{}={value}", name.replace('_', "-")),
        None => word.replace('_', "-"),
    }
}

/// The first word that is neither an option nor an option's value.
pub(crate) fn command_name(words: &[String]) -> Option<&str> {
    words.get(command_position(words)?).map(String::as_str)
}

/// Where it stands.
pub(crate) fn command_position(words: &[String]) -> Option<usize> {
    let mut words = words.iter().enumerate();
    while let Some((position, word)) = words.next() {
        if !word.starts_with('-') {
            return Some(position);
        }
        let name = normal(word);
        let takes_value = EVERYWHERE.iter().any(|(long, short, value, _)| {
            let is_short = short.is_some_and(|short| name == format!("-{short}"));
            value.is_some() && (is_short || name.strip_prefix("--") == Some(*long))
        });
        if takes_value || name == "--format" {
            words.next();
        }
    }
    None
}

pub(crate) fn unknown_command(program: Program, name: &str) -> Failure {
    if name.is_empty() {
        return Failure::plain(exit::USAGE, crate::usage::all(program));
    }
    let known = commands::of(program).map(|spec| spec.name);
    let hint = match nearest(name, known) {
        Some(known) => format!("Did you mean '{known}'? \n"),
        None => format!("See '{} help' for the commands there are.\n", program.name()),
    };
    Failure::plain(exit::USAGE, format!("\nCommand '{name}' not found. \n{hint}"))
}

fn refusal(error: &clap::Error) -> Failure {
    let told = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => texts.first().cloned(),
        _ => None,
    };
    let given = told(ContextKind::InvalidArg).unwrap_or_default();
    match error.kind() {
        ErrorKind::MissingRequiredArgument => Failure::argument(exit::USAGE, "not enough arguments."),
        ErrorKind::UnknownArgument if given.starts_with('-') => {
            let hint = told(ContextKind::SuggestedArg)
                .map(|known| format!("\nDid you mean '{known}'?"))
                .unwrap_or_default();
            Failure::argument(
                exit::USAGE,
                format!("Invalid options for this command:\n{given} : {hint}"),
            )
        }
        ErrorKind::UnknownArgument | ErrorKind::TooManyValues | ErrorKind::InvalidSubcommand => {
            Failure::argument(exit::USAGE, "too many arguments.")
        }
        ErrorKind::InvalidValue => Failure::argument(exit::USAGE, format!("{given} needs a value.")),
        _ => {
            let text = error.to_string();
            let first = text.lines().next().unwrap_or_default();
            Failure::argument(exit::USAGE, first.trim_start_matches("error: "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(ToOwned::to_owned).collect()
    }

    #[test]
    fn the_tables_make_a_sound_program() {
        for program in crate::program::tools::ALL {
            build(*program, commands::of(*program)).debug_assert();
        }
    }

    #[test]
    fn options_stand_anywhere_and_come_in_all_spellings() {
        for line in [
            "-p v list_queues name messages -q",
            "list_queues --vhost=v name messages --quiet",
            "-q --vhost v -n rabbit@host list_queues name --no_table_headers messages",
        ] {
            let (spec, matches) = parse(Program::Ctl, &words(line)).unwrap();
            assert_eq!(spec.name, "list_queues", "{line}");
            assert_eq!(matches.get_one::<String>("vhost").unwrap(), "v", "{line}");
            assert!(matches.get_flag("quiet"), "{line}");
            let columns: Vec<&String> = matches.get_many("column").unwrap().collect();
            assert_eq!(columns, ["name", "messages"], "{line}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_the_code_for_usage() {
        for (line, text) in [
            ("add_user", "not enough arguments"),
            ("add_user a b c", "too many arguments"),
            ("list_quues", "Did you mean 'list_queues'"),
            ("list_queues --onlin", "Did you mean '--online'"),
            ("frobnicate", "not found"),
        ] {
            let failure = parse(Program::Ctl, &words(line)).map(|_| ()).unwrap_err();
            assert_eq!(failure.code, exit::USAGE, "{line}");
            assert!(failure.text.contains(text), "{line}: {}", failure.text);
        }
    }
}
