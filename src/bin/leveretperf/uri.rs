//! `amqp://user:password@host:port/vhost`, as client libraries read it.

use std::{fmt, str::FromStr};

use thiserror::Error;

/// Where the broker is and who we are there. Every part may be missing; RabbitMQ's defaults stand in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Uri {
    pub(crate) user: String,
    pub(crate) password: String,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) vhost: String,
}

#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum UriError {
    #[error("a broker's URI starts with amqp:// (TLS is not supported)")]
    Scheme,
    #[error("'{0}' is not a port")]
    Port(String),
    #[error("'{0}' has a % that is not followed by two hexadecimal digits, or is not UTF-8")]
    Percent(String),
    #[error("the vhost '{0}' contains a /, which has to be written %2F")]
    Vhost(String),
}

impl FromStr for Uri {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        let rest = text.strip_prefix("amqp://").ok_or(UriError::Scheme)?;
        let rest = rest.split_once(['?', '#']).map_or(rest, |(before, _)| before);
        let (authority, path) = rest
            .split_once('/')
            .map_or((rest, ""), |(authority, path)| (authority, path));
        let (credentials, address) = authority.rsplit_once('@').unwrap_or(("guest:guest", authority));
        let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
        // The colons inside [::1] separate no port.
        let port_at = address
            .rfind(':')
            .filter(|at| !address.get(*at..).is_some_and(|after| after.contains(']')));
        let (host, port) = port_at.map_or((address, ""), |at| {
            let (host, port) = address.split_at(at);
            (host, port.trim_start_matches(':'))
        });
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if path.contains('/') {
            return Err(UriError::Vhost(path.to_string()));
        }
        Ok(Self {
            user: percent_decode(user)?,
            password: percent_decode(password)?,
            host: if host.is_empty() {
                "localhost".into()
            } else {
                percent_decode(host)?
            },
            port: match port {
                "" => 5672,
                digits => digits
                    .parse()
                    .map_err(|_not_a_number| UriError::Port(digits.to_string()))?,
            },
            vhost: if path.is_empty() {
                "/".into()
            } else {
                percent_decode(path)?
            },
        })
    }
}

/// The address, never the password.
impl fmt::Display for Uri {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}", self.host, self.port)
    }
}

fn percent_decode(text: &str) -> Result<String, UriError> {
    let bad = || UriError::Percent(text.to_string());
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte == b'%' {
            let (digits, after) = rest.split_first_chunk::<2>().ok_or_else(bad)?;
            let digit = |ascii: u8| {
                char::from(ascii)
                    .to_digit(16)
                    .and_then(|value| u8::try_from(value).ok())
            };
            let [high, low] = digits.map(digit);
            bytes.push(high.ok_or_else(bad)? << 4 | low.ok_or_else(bad)?);
            rest = after;
        } else {
            bytes.push(*byte);
        }
    }
    String::from_utf8(bytes).map_err(|_invalid| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_and_their_defaults() {
        for (text, expected) in [
            ("amqp://", ("guest", "guest", "localhost", 5672, "/")),
            ("amqp://localhost/", ("guest", "guest", "localhost", 5672, "/")),
            ("amqp://u:p@h:1/%2F", ("u", "p", "h", 1, "/")),
            (
                "amqp://u%40x:p%3A%2f@h/v%20w?heartbeat=5",
                ("u@x", "p:/", "h", 5672, "v w"),
            ),
            ("amqp://u@[::1]:99/v", ("u", "", "::1", 99, "v")),
            ("amqp://[::1]", ("guest", "guest", "::1", 5672, "/")),
        ] {
            let uri: Uri = text.parse().expect(text);
            let got = (&*uri.user, &*uri.password, &*uri.host, uri.port, &*uri.vhost);
            assert_eq!(got, expected, "{text}");
        }
    }

    #[test]
    fn what_is_not_a_broker_uri_is_refused() {
        for (text, expected) in [
            ("amqps://h", UriError::Scheme),
            ("localhost:5672", UriError::Scheme),
            ("amqp://h:70000", UriError::Port("70000".into())),
            ("amqp://h/%2", UriError::Percent("%2".into())),
            ("amqp://h/%zz", UriError::Percent("%zz".into())),
            ("amqp://h/%ff", UriError::Percent("%ff".into())),
            ("amqp://h/a/b", UriError::Vhost("a/b".into())),
        ] {
            assert_eq!(text.parse::<Uri>(), Err(expected), "{text}");
        }
    }
}
