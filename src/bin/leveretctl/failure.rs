//! Why a command failed: the text for stderr, and the exit code of sysexits.h that RabbitMQ's tools use.

/// Exit codes.
pub(crate) mod exit {
    pub(crate) const USAGE: u8 = 64;
    pub(crate) const DATA: u8 = 65;
    pub(crate) const NO_USER: u8 = 67;
    pub(crate) const UNAVAILABLE: u8 = 69;
    pub(crate) const SOFTWARE: u8 = 70;
    pub(crate) const IO: u8 = 74;
    pub(crate) const TEMPORARY: u8 = 75;
    pub(crate) const NO_PERMISSION: u8 = 77;
    /// What shells report for a program that Ctrl-C ended.
    pub(crate) const INTERRUPTED: u8 = 130;
}

/// A command that came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) code: u8,
    pub(crate) text: String,
    /// Only the arguments were wrong: what was given and the usage follow the text.
    pub(crate) usage: bool,
    /// There is nobody to talk to.
    pub(crate) unreachable: bool,
    /// The broker's own words, when it refused.
    pub(crate) reason: Option<Refusal>,
}

/// The HTTP API's refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) reason: String,
}

impl Failure {
    /// The text as it stands.
    pub(crate) fn plain(code: u8, text: impl Into<String>) -> Self {
        Self {
            code,
            text: text.into(),
            usage: false,
            unreachable: false,
            reason: None,
        }
    }

    /// With the word that scripts look for.
    pub(crate) fn new(code: u8, text: impl std::fmt::Display) -> Self {
        Self::plain(code, format!("Error:\n{text}"))
    }

    pub(crate) fn unavailable(text: impl std::fmt::Display) -> Self {
        Self::new(exit::UNAVAILABLE, text)
    }

    /// A bad argument: code 64 or 65.
    pub(crate) fn argument(code: u8, text: impl std::fmt::Display) -> Self {
        Self {
            usage: true,
            ..Self::plain(code, format!("Error (argument validation): {text}"))
        }
    }

    /// The same without the words about validation.
    pub(crate) fn misplaced(text: impl std::fmt::Display) -> Self {
        Self {
            usage: true,
            ..Self::plain(exit::USAGE, format!("Error: {text}"))
        }
    }

    /// The broker answered, and refused.
    pub(crate) fn refused(status: u16, reason: &str) -> Self {
        if reason.starts_with("this command requires the 'rabbit' app") {
            return Self::misplaced(reason);
        }
        let code = match status {
            401 | 403 => exit::NO_PERMISSION,
            _ if reason.starts_with("User ") && reason.ends_with(" does not exist") => exit::NO_USER,
            _ if reason.starts_with("Virtual host ") && reason.ends_with(" does not exist") => exit::DATA,
            _ => exit::UNAVAILABLE,
        };
        Self {
            reason: Some(Refusal {
                status,
                reason: reason.to_owned(),
            }),
            ..Self::new(code, reason)
        }
    }

    /// Says, for a wrong argument, what was given and what would be right.
    pub(crate) fn with_usage(mut self, words: &[String], usage: &str) -> Self {
        if std::mem::take(&mut self.usage) {
            let given = words
                .iter()
                .map(|word| without_password(word))
                .collect::<Vec<_>>()
                .join(" ");
            self.text = format!("{}\nArguments given:\n\t{given}\n\nUsage\n\n{usage}", self.text);
        }
        self
    }

    /// The broker knows no such thing.
    pub(crate) fn is_missing(&self) -> bool {
        self.reason.as_ref().is_some_and(|refusal| refusal.status == 404)
    }

    /// Ctrl-C between two steps: nothing is half done.
    pub(crate) fn interrupted() -> Self {
        Self::plain(exit::TEMPORARY, "interrupted; the same command goes on from here")
    }

    /// What a file or a pipe said.
    pub(crate) fn io(what: &str, error: &std::io::Error) -> Self {
        Self::new(exit::IO, format!("{what}: {error}"))
    }
}

/// A URL without who logs in: what is wrong is told to terminals and logs.
fn without_password(word: &str) -> String {
    let parts = word
        .split_once("://")
        .and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?.1)));
    match parts {
        Some((scheme, rest)) => format!("{scheme}://...@{rest}"),
        None => word.to_owned(),
    }
}
