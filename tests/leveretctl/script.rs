//! A script of commands and what each must answer, written as a session is read.

use crate::broker::Broker;

/// Runs a session as `rabbitmqctl`: lines with `$ ` are commands, `! CODE` the exit code of the last one when it is not 0,
/// `> ` a line of stderr, and all others lines of stdout. `NODE` stands for the node's name.
pub(crate) fn check(broker: &Broker, session: &str) {
    let node = broker.node();
    let mut steps: Vec<(String, i32, String, String)> = Vec::new();
    for line in session.trim_end().lines() {
        let line = line.trim_start().replace("NODE", &node);
        if let Some(command) = line.strip_prefix("$ ") {
            steps.push((command.to_owned(), 0, String::new(), String::new()));
            continue;
        }
        let Some((_, code, out, err)) = steps.last_mut() else {
            continue;
        };
        if let Some(number) = line.strip_prefix("! ") {
            *code = number.parse().unwrap();
        } else if let Some(text) = line.strip_prefix('>') {
            err.push_str(text.strip_prefix(' ').unwrap_or(text));
            err.push('\n');
        } else {
            // A line of stdout that is empty or begins with a tab is written with a bar before.
            out.push_str(line.strip_prefix('|').unwrap_or(&line));
            out.push('\n');
        }
    }
    for (command, code, out, err) in steps {
        let mut words = crate::broker::words(&command);
        let own = ["rabbitmq-", "leveretctl"];
        let tool = if own.iter().any(|own| command.starts_with(own)) {
            words.remove(0)
        } else {
            "rabbitmqctl".to_owned()
        };
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let ran = broker.run(&tool, &words);
        assert_eq!(
            ran.out.replace('\t', "⇥"),
            out.replace('\t', "⇥"),
            "stdout of {command}; stderr {}",
            ran.err
        );
        if err.contains("...") {
            let begin = err.split("...").next().unwrap();
            assert!(ran.err.starts_with(begin), "stderr of {command}: {}", ran.err);
        } else {
            assert_eq!(ran.err, err, "stderr of {command}");
        }
        assert_eq!(ran.code, code, "exit code of {command}");
    }
}
