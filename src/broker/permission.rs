//! What a user may do in a vhost: three patterns on the names of queues and exchanges, and patterns on routing keys of
//! topic exchanges (amqp-behaviour 7.1, 7.3).

use regex::Regex;

use crate::broker::{definition::Name, policy::compile};

/// The kinds of access; their words stand in refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    Configure,
    Write,
    Read,
}

impl std::fmt::Display for Verb {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(match self {
            Self::Configure => "configure",
            Self::Write => "write",
            Self::Read => "read",
        })
    }
}

/// A user's permissions in one vhost, as set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permission {
    pub user: Name,
    pub vhost: Name,
    pub configure: String,
    pub write: String,
    pub read: String,
}

/// A user's permissions on the routing keys of one topic exchange, as set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicPermission {
    pub user: Name,
    pub vhost: Name,
    /// An empty name is the default exchange.
    pub exchange: Name,
    pub write: String,
    pub read: String,
}

impl Permission {
    /// Refuses what is no regular expression.
    ///
    /// # Errors
    /// RabbitMQ's text, naming the pattern.
    pub fn validate(&self) -> Result<(), String> {
        [&self.configure, &self.write, &self.read]
            .into_iter()
            .try_for_each(|pattern| check(pattern))
    }
}

impl TopicPermission {
    /// Refuses what is no regular expression.
    ///
    /// # Errors
    /// RabbitMQ's text, naming the pattern.
    pub fn validate(&self) -> Result<(), String> {
        [&self.write, &self.read]
            .into_iter()
            .try_for_each(|pattern| check(&substitute(pattern, &self.user, &self.vhost)))
    }
}

fn check(pattern: &str) -> Result<(), String> {
    compile(pattern)
        .map(|_| ())
        .map_err(|problem| format!("invalid regexp \"{pattern}\": {problem}"))
}

/// A compiled pattern with short cuts for the two that nearly everybody uses.
#[derive(Clone, Debug)]
enum Pattern {
    Everything,
    /// The empty pattern, and one that does not compile: it is only the empty name that an empty pattern matches.
    Nothing,
    Matching(Regex),
}

impl Pattern {
    fn new(pattern: &str) -> Self {
        match pattern {
            "" | "^$" => Self::Nothing,
            ".*" | "^.*$" | "^.*" | ".*$" => Self::Everything,
            _ => compile(pattern).map_or(Self::Nothing, Self::Matching),
        }
    }

    fn matches(&self, name: &str) -> bool {
        match self {
            Self::Everything => true,
            Self::Nothing => name.is_empty(),
            Self::Matching(regex) => regex.is_match(name),
        }
    }
}

/// Puts a user and a vhost into a topic pattern; what they contain is taken literally.
fn substitute(pattern: &str, user: &str, vhost: &str) -> String {
    pattern
        .replace("{username}", &regex::escape(user))
        .replace("{vhost}", &regex::escape(vhost))
}

#[derive(Clone, Debug)]
struct TopicRule {
    exchange: Name,
    write: Pattern,
    read: Pattern,
}

/// A user's permissions in one vhost, compiled.
#[derive(Clone, Debug)]
pub struct Grants {
    configure: Pattern,
    write: Pattern,
    read: Pattern,
    topics: Vec<TopicRule>,
}

impl Grants {
    /// Of `topics`, only those of the same user and vhost may be given.
    pub fn new<'a>(permission: &Permission, topics: impl IntoIterator<Item = &'a TopicPermission>) -> Self {
        let topics = topics.into_iter().map(|topic| {
            let pattern = |text: &str| Pattern::new(&substitute(text, &topic.user, &topic.vhost));
            TopicRule {
                exchange: Name::clone(&topic.exchange),
                write: pattern(&topic.write),
                read: pattern(&topic.read),
            }
        });
        Self {
            configure: Pattern::new(&permission.configure),
            write: Pattern::new(&permission.write),
            read: Pattern::new(&permission.read),
            topics: topics.collect(),
        }
    }

    /// Whether something of this name may be accessed. The default exchange's name is `amq.default` here.
    pub fn may(&self, verb: Verb, name: &str) -> bool {
        match verb {
            Verb::Configure => &self.configure,
            Verb::Write => &self.write,
            Verb::Read => &self.read,
        }
        .matches(name)
    }

    /// Whether a routing key may be used with a topic exchange. Without a rule for the exchange it may.
    pub fn may_topic(&self, verb: Verb, exchange: &str, key: &str) -> bool {
        let rule = self.topics.iter().find(|rule| &*rule.exchange == exchange);
        rule.is_none_or(|rule| match verb {
            Verb::Read => rule.read.matches(key),
            Verb::Write | Verb::Configure => rule.write.matches(key),
        })
    }

    /// There are rules about routing keys at all.
    pub fn has_topics(&self) -> bool {
        !self.topics.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permission(configure: &str, write: &str, read: &str) -> Permission {
        Permission {
            user: "a.b".into(),
            vhost: "/".into(),
            configure: configure.to_owned(),
            write: write.to_owned(),
            read: read.to_owned(),
        }
    }

    /// Proves: PRM-008
    #[test]
    fn patterns_are_searched_anywhere_and_an_empty_one_allows_nothing() {
        let grants = Grants::new(&permission("^amq\\.default$", "", "q"), []);
        assert!(grants.may(Verb::Configure, "amq.default"));
        assert!(!grants.may(Verb::Configure, "amq_default"));
        assert!(!grants.may(Verb::Write, "anything"));
        assert!(grants.may(Verb::Read, "a queue"));
        assert!(!grants.may(Verb::Read, "Q"));
        let all = Grants::new(&permission(".*", ".*", ".*"), []);
        assert!(all.may(Verb::Write, "any\nthing"), "{all:?}");
        let broken = Grants::new(&permission("(", "(", "("), []);
        assert!(!broken.may(Verb::Read, "("), "what does not compile denies");
    }

    #[test]
    fn topic_patterns_know_user_and_vhost_literally() {
        let topic = TopicPermission {
            user: "a.b".into(),
            vhost: "/".into(),
            exchange: "amq.topic".into(),
            write: "^{username}\\..*{vhost}$".to_owned(),
            read: String::new(),
        };
        let grants = Grants::new(&permission(".*", ".*", ".*"), [&topic]);
        assert!(grants.may_topic(Verb::Write, "amq.topic", "a.b.c/"));
        assert!(
            !grants.may_topic(Verb::Write, "amq.topic", "axb.c/"),
            "the user's dot is a dot"
        );
        assert!(!grants.may_topic(Verb::Read, "amq.topic", "k"));
        assert!(grants.may_topic(Verb::Read, "other", "k"), "no rule, no bound");
        assert!(topic.validate().is_ok());
    }

    #[test]
    fn a_bad_pattern_is_named() {
        let error = permission(".*", "[", "").validate().unwrap_err();
        assert!(error.starts_with("invalid regexp \"[\": "), "{error}");
    }
}
