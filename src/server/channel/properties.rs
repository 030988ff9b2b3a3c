//! Properties of a publish that the broker acts on.

use crate::broker::error::BrokerError;
use crate::protocol::properties::RawProperties;

/// The properties that the broker acts on must make sense (amqp-behaviour 2.4, 7.5).
#[inline]
pub(super) fn check_properties(raw: RawProperties<'_>) -> Result<(), BrokerError> {
    if raw.has_expiration()
        && let Ok(Some(value)) = raw.expiration()
    {
        check_expiration(value)?;
    }
    Ok(())
}

/// Nobody may speak for another (amqp-behaviour 7.5).
#[inline]
pub(super) fn check_user_id(raw: RawProperties<'_>, user: &str) -> Result<(), BrokerError> {
    if raw.has_user_id()
        && let Ok(Some(claimed)) = raw.user_id()
        && claimed != user.as_bytes()
    {
        let claimed = String::from_utf8_lossy(claimed).into_owned();
        return Err(BrokerError::ForeignUserId {
            claimed,
            user: user.to_owned(),
        });
    }
    Ok(())
}

fn check_expiration(value: &[u8]) -> Result<(), BrokerError> {
    const MAX: i64 = 315_360_000_000;
    let text = String::from_utf8_lossy(value);
    let refuse = |detail: String| {
        Err(BrokerError::InvalidExpiration {
            value: text.to_string(),
            detail,
        })
    };
    let sign = usize::from(text.starts_with(['+', '-']));
    let digits = text
        .get(sign..)
        .unwrap_or("")
        .bytes()
        .take_while(u8::is_ascii_digit)
        .count();
    let (number, rest) = text.split_at_checked(sign + digits).unwrap_or((&text, ""));
    if digits == 0 {
        return refuse("no_integer".to_owned());
    }
    if !rest.is_empty() {
        return refuse(format!("{{leftover_string,\"{rest}\"}}"));
    }
    match number.parse::<i64>() {
        Ok(number) if number < 0 => refuse(format!("{{value_negative,{number}}}")),
        Ok(number) if number <= MAX => Ok(()),
        _ => refuse(format!("{{value_too_large,{number}}}")),
    }
}

#[cfg(test)]
mod tests {
    use super::check_expiration;

    #[test]
    fn an_expiration_is_a_decimal_number_and_nothing_else() {
        for good in ["0", "60000", "+5", "315360000000"] {
            assert!(check_expiration(good.as_bytes()).is_ok(), "{good}");
        }
        let bad = [
            ("", "no_integer"),
            ("abc", "no_integer"),
            (" 5", "no_integer"),
            ("1.5", "{leftover_string,\".5\"}"),
            ("10s", "{leftover_string,\"s\"}"),
            ("-1", "{value_negative,-1}"),
            ("315360000001", "{value_too_large,315360000001}"),
        ];
        for (value, detail) in bad {
            let error = check_expiration(value.as_bytes()).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("invalid expiration '{value}': {detail}")
            );
        }
    }
}
