//! Which program this is: the name that it was called by decides which commands it has and how it talks.

use crate::arguments::command_position;

/// A tool of RabbitMQ's, or our own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    Leveretctl,
    Ctl,
    Diagnostics,
    Queues,
    Plugins,
    Upgrade,
    Streams,
}

/// Sets of programs.
pub(crate) mod tools {
    use super::Program;

    pub(crate) const CTL: &[Program] = &[Program::Leveretctl, Program::Ctl];
    pub(crate) const DIAGNOSTICS: &[Program] = &[Program::Leveretctl, Program::Diagnostics];
    pub(crate) const BOTH: &[Program] = &[Program::Leveretctl, Program::Ctl, Program::Diagnostics];
    pub(crate) const QUEUES: &[Program] = &[Program::Leveretctl, Program::Queues];
    pub(crate) const HEALTH_OF_QUEUES: &[Program] =
        &[Program::Leveretctl, Program::Diagnostics, Program::Queues];
    pub(crate) const PLUGINS: &[Program] = &[Program::Plugins];
    pub(crate) const UPGRADE: &[Program] = &[Program::Leveretctl, Program::Upgrade];
    pub(crate) const STREAMS: &[Program] = &[Program::Streams];
    pub(crate) const OURS: &[Program] = &[Program::Leveretctl];
    pub(crate) const ALL: &[Program] = &[
        Program::Leveretctl,
        Program::Ctl,
        Program::Diagnostics,
        Program::Queues,
        Program::Plugins,
        Program::Upgrade,
        Program::Streams,
    ];
}

const NAMES: [(&str, Program); 6] = [
    ("rabbitmqctl", Program::Ctl),
    ("rabbitmq-diagnostics", Program::Diagnostics),
    ("rabbitmq-queues", Program::Queues),
    ("rabbitmq-plugins", Program::Plugins),
    ("rabbitmq-upgrade", Program::Upgrade),
    ("rabbitmq-streams", Program::Streams),
];

impl Program {
    /// The program that these words call, and the words that remain for it. `leveretctl plugins list` is
    /// `rabbitmq-plugins list`.
    pub(crate) fn of(words: Vec<String>) -> (Self, Vec<String>) {
        let mut words = words.into_iter();
        let path = words.next().unwrap_or_default();
        let name = path.rsplit('/').next().unwrap_or_default();
        let known = NAMES.iter().find(|(known, _)| *known == name);
        let mut words: Vec<String> = words.collect();
        if let Some((_, program)) = known {
            return (*program, words);
        }
        // `leveretctl --data-dir DIR plugins list` too.
        let position = command_position(&words);
        let word = position.and_then(|position| words.get(position));
        let program = match word.map(String::as_str) {
            Some("plugins") => Self::Plugins,
            Some("diagnostics") => Self::Diagnostics,
            Some("queues") => Self::Queues,
            Some("upgrade") => Self::Upgrade,
            Some("streams") => Self::Streams,
            _ => return (Self::Leveretctl, words),
        };
        if let Some(position) = position {
            words.remove(position);
        }
        (program, words)
    }

    pub(crate) fn name(self) -> &'static str {
        NAMES
            .iter()
            .find(|(_, program)| *program == self)
            .map_or("leveretctl", |(name, _)| name)
    }

    /// Whether scripts written for RabbitMQ's tools read what it prints: banners on stdout, tables with tabs.
    pub(crate) fn is_compatible(self) -> bool {
        self != Self::Leveretctl
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_decides() {
        let of = |words: &[&str]| {
            let words = words.iter().map(ToString::to_string).collect();
            let (program, rest) = Program::of(words);
            (program, rest.join(" "))
        };
        assert_eq!(
            of(&["/usr/sbin/rabbitmqctl", "status"]),
            (Program::Ctl, "status".into())
        );
        assert_eq!(
            of(&["leveretctl", "status"]),
            (Program::Leveretctl, "status".into())
        );
        assert_eq!(
            of(&["leveretctl", "plugins", "list"]),
            (Program::Plugins, "list".into())
        );
        assert_eq!(
            of(&["leveretctl", "--data-dir", "plugins", "-q", "diagnostics", "ping"]),
            (Program::Diagnostics, "--data-dir plugins -q ping".into())
        );
        assert_eq!(of(&["leveretctl"]), (Program::Leveretctl, String::new()));
    }
}
