//! What `help` and `version` answer, without a broker.

use crate::{
    arguments::{command_name, unknown_command},
    commands,
    failure::{Failure, exit},
    output::print,
    program::Program,
};

const GENERAL: &str = "\
General Options

The following options are accepted by most or all commands.

short            | long          | description
-----------------|---------------|--------------------------------
-?               | --help        | displays command help
-n <node>        | --node <node> | accepted, there is one node
-l               | --longnames   | accepted
-t               | --timeout <n> | for commands that support it, operation timeout in seconds
-q               | --quiet       | suppress informational messages
-s               | --silent      | suppress informational messages
                                 | and table header row
-p               | --vhost       | for commands that are scoped to a virtual host,
                 |               | virtual host to use
                 | --formatter   | alternative result formatter to use
                                 | if supported: json, json_stream, pretty_table, table, tsv, csv
                 | --url <url>   | a broker elsewhere, as http://user:password@host:15672
                 | --socket <path>
                                 | the control socket of a broker on this machine
";

/// Answers when it was help or the version that was asked for; gives whether it was.
pub(crate) fn answer(program: Program, words: &[String]) -> Result<bool, Failure> {
    let options = words.iter().take_while(|word| *word != "--");
    let name = command_name(words);
    if options.clone().any(|word| word == "--version") || name == Some("version") {
        print(&version(program))?;
        return Ok(true);
    }
    let asked = options
        .clone()
        .any(|word| matches!(word.as_str(), "--help" | "-?" | "-h"));
    if name == Some("help") {
        let topic = words.iter().skip_while(|word| *word != "help").nth(1);
        print(&topic.map_or_else(|| Ok(all(program)), |topic| one(program, topic))?)?;
        return Ok(true);
    }
    if !asked {
        return Ok(false);
    }
    match name {
        Some(name) if commands::find(program, name).is_some() => print(&one(program, name)?)?,
        Some(name) => return Err(unknown_command(program, name)),
        None => print(&all(program))?,
    }
    Ok(true)
}

/// Ours says what it is; the others give the bare version that scripts compare, that of RabbitMQ which we stand in for.
fn version(program: Program) -> String {
    if program.is_compatible() {
        format!("{}\n", commands::RABBITMQ_VERSION)
    } else {
        format!("leveretctl {}\n", env!("CARGO_PKG_VERSION"))
    }
}

/// All commands of a program, by group.
pub(crate) fn all(program: Program) -> String {
    let mut text = format!(
        "\nUsage\n\n{} [--node <node>] [--timeout <timeout>] [--longnames] [--quiet] <command> [<command options>]\n\nAvailable commands:\n",
        program.name()
    );
    let mut groups: Vec<&str> = Vec::new();
    for spec in commands::of(program) {
        if !groups.contains(&spec.group) {
            groups.push(spec.group);
        }
    }
    for group in groups {
        text.push_str(&format!("\n{group}:\n\n"));
        for spec in commands::of(program).filter(|spec| spec.group == group) {
            text.push_str(&format!("   {:<44} {}\n", spec.name, spec.about));
        }
    }
    text.push_str(&format!(
        "\nUse '{} help <command>' to learn more about a specific command\n",
        program.name()
    ));
    text
}

fn one(program: Program, name: &str) -> Result<String, Failure> {
    let Some(spec) = commands::find(program, name) else {
        let mut failure = unknown_command(program, name);
        failure.text = format!("Error:\n{}", failure.text);
        failure.code = exit::USAGE;
        return Err(failure);
    };
    let mut text = format!("\nUsage\n\n{}\n\n{}\n", spec.usage(program), spec.about);
    if !spec.options.is_empty() {
        text.push_str("\nArguments and Options\n");
        for option in spec.options {
            let short = option.short.map_or(String::new(), |short| format!("-{short}, "));
            text.push_str(&format!("\n{short}--{}\n\t{}\n", option.name, option.about));
        }
    }
    text.push('\n');
    text.push_str(GENERAL);
    Ok(text)
}
