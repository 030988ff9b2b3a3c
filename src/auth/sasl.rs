//! What a client says about itself: the responses of SASL mechanisms (amqp-behaviour 1.3).

/// User and password of a PLAIN response: NUL, user, NUL, password. `None` when malformed (amqp-behaviour 1.3).
pub fn plain(response: &[u8]) -> Option<(String, Vec<u8>)> {
    let rest = response.strip_prefix(&[0])?;
    let mut parts = rest.split(|byte| *byte == 0);
    let (user, password) = (parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    Some((String::from_utf8(user.to_vec()).ok()?, password.to_vec()))
}

/// User and password of an AMQPLAIN response: a table without its length, with LOGIN and PASSWORD.
pub fn amqplain(response: &[u8]) -> Option<(String, Vec<u8>)> {
    let table = crate::protocol::field::FieldTable::parse_body(response).ok()?;
    let user = table.get("LOGIN")?.as_str_bytes()?.to_vec();
    let password = table.get("PASSWORD")?.as_str_bytes()?.to_vec();
    Some((String::from_utf8(user).ok()?, password))
}

/// User and password of RABBIT-CR-DEMO: the name, and the answer to the challenge.
pub fn challenged(user: &[u8], answer: &[u8]) -> Option<(String, Vec<u8>)> {
    let password = answer.strip_prefix(b"My password is ")?;
    Some((String::from_utf8(user.to_vec()).ok()?, password.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sasl_responses_are_read_or_refused() {
        assert_eq!(
            plain(b"\0guest\0pass"),
            Some(("guest".to_owned(), b"pass".to_vec()))
        );
        for malformed in [
            &b""[..],
            b"guest\0pass",
            b"\0guest",
            b"\0guest\0pass\0more",
            b"z\0guest\0pass",
            b"\0\xff\0p",
        ] {
            assert_eq!(plain(malformed), None, "{malformed:?}");
        }
        let table = b"\x05LOGINS\x00\x00\x00\x05guest\x08PASSWORDS\x00\x00\x00\x04pass";
        assert_eq!(amqplain(table), Some(("guest".to_owned(), b"pass".to_vec())));
        assert_eq!(amqplain(&table[..16]), None, "no password");
        assert_eq!(amqplain(b"junk"), None);
    }
}
