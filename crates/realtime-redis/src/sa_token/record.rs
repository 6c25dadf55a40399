//! [`Record`]: what Redis says about a token.

use std::{
    borrow::Cow,
    time::{SystemTime, UNIX_EPOCH},
};

use super::invalid::Invalid;

/// The values of a token's two keys, as they came.
///
/// Redisson's JSON codec writes texts in quotes, Sa-Token's other stores do without; both are understood.
#[derive(Debug, Default)]
pub(super) struct Record {
    /// Of `…:token:<jwt>`: the login id, or a negative number once the login was ended by somebody.
    pub(super) login: Option<String>,
    /// Of `…:last-active:<jwt>`: milliseconds since 1970, and after a comma the seconds of allowed inactivity.
    pub(super) last_active: Option<String>,
}

impl Record {
    /// Whether the login holds (`StpLogic.checkLogin`).
    pub(super) fn check(&self, login_id: &str, now: SystemTime) -> Result<(), Invalid> {
        let login = self.login.as_deref().ok_or(Invalid::Unknown)?;
        match unquoted(login).as_ref() {
            "-1" => Err(Invalid::Marked(-1)),
            "-2" => Err(Invalid::Marked(-2)),
            "-3" => Err(Invalid::Expired),
            "-4" => Err(Invalid::Replaced),
            "-5" => Err(Invalid::Kicked),
            "-6" => Err(Invalid::Frozen),
            "-7" => Err(Invalid::Marked(-7)),
            login if login != login_id => Err(Invalid::LoginId),
            _ => self.check_activity(now),
        }
    }

    fn check_activity(&self, now: SystemTime) -> Result<(), Invalid> {
        let value = unquoted(self.last_active.as_deref().ok_or(Invalid::NeverActive)?);
        let (active, limit) = match value.split_once(',') {
            Some((active, limit)) => (active, limit.parse::<i64>().map_err(|_| Invalid::LastActive)?),
            None => (value.as_ref(), NO_LIMIT),
        };
        let active: i64 = active.parse().map_err(|_| Invalid::LastActive)?;
        let idle = millis(now).saturating_sub(active) / 1000;
        if limit >= 0 && idle > limit { Err(Invalid::Inactive) } else { Ok(()) }
    }

    /// The value of the second key after activity `now`: the same with another time.
    pub(super) fn renewed(&self, now: SystemTime) -> Option<String> {
        let value = self.last_active.as_deref()?;
        let quote = if value.starts_with('"') { "\"" } else { "" };
        let value = unquoted(value);
        let limit = value.find(',').map_or("", |comma| &value[comma..]);
        Some(format!("{quote}{}{limit}{quote}", millis(now)))
    }
}

/// Where a value names no limit, Sa-Token's own default holds: -1.
const NO_LIMIT: i64 = -1;

fn unquoted(value: &str) -> Cow<'_, str> {
    serde_json::from_str(value).map_or(Cow::Borrowed(value), Cow::Owned)
}

fn millis(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_000_000)
    }

    fn check(login: &str, last_active: &str) -> Result<(), Invalid> {
        let some = |value: &str| Some(value.to_owned()).filter(|value| !value.is_empty());
        Record { login: some(login), last_active: some(last_active) }.check("sys_user:1", now())
    }

    #[test]
    fn every_value_of_the_first_key_has_its_meaning() {
        for (login, expected) in [
            (r#""sys_user:1""#, Ok(())),
            ("sys_user:1", Ok(())),
            ("", Err(Invalid::Unknown)),
            (r#""sys_user:2""#, Err(Invalid::LoginId)),
            (r#""""#, Err(Invalid::LoginId)),
            (r#""-1""#, Err(Invalid::Marked(-1))),
            (r#""-2""#, Err(Invalid::Marked(-2))),
            (r#""-3""#, Err(Invalid::Expired)),
            (r#""-4""#, Err(Invalid::Replaced)),
            (r#""-5""#, Err(Invalid::Kicked)),
            ("-5", Err(Invalid::Kicked)),
            (r#""-6""#, Err(Invalid::Frozen)),
            (r#""-7""#, Err(Invalid::Marked(-7))),
        ] {
            assert_eq!(check(login, r#""1000000000,1800""#), expected, "{login}");
        }
    }

    #[test]
    fn a_mark_in_redis_is_no_login_id_even_if_the_token_says_so() {
        let record = Record { login: Some(r#""-5""#.into()), last_active: Some(r#""1000000000""#.into()) };
        assert_eq!(record.check("-5", now()), Err(Invalid::Kicked));
    }

    #[test]
    fn inactivity_counts_in_whole_seconds_and_only_against_a_limit() {
        for (last_active, expected) in [
            (r#""1000000000,1800""#, Ok(())),
            (r#""999999000,0""#, Err(Invalid::Inactive)),
            (r#""999999001,0""#, Ok(())),
            (r#""998200000,1800""#, Ok(())),
            (r#""998199001,1800""#, Ok(())),
            (r#""998199000,1800""#, Err(Invalid::Inactive)),
            ("998199000,1800", Err(Invalid::Inactive)),
            (r#""1,-1""#, Ok(())),
            (r#""1""#, Ok(())),
            ("1", Ok(())),
            (r#""2000000000,5""#, Ok(())),
            ("", Err(Invalid::NeverActive)),
            (r#""soon""#, Err(Invalid::LastActive)),
            (r#""1,soon""#, Err(Invalid::LastActive)),
        ] {
            assert_eq!(check(r#""sys_user:1""#, last_active), expected, "{last_active}");
        }
    }

    #[test]
    fn a_renewed_value_differs_in_its_time_only() {
        for (before, after) in [
            (r#""1,1800""#, Some(r#""1000000000,1800""#)),
            (r#""1,-1""#, Some(r#""1000000000,-1""#)),
            (r#""1""#, Some(r#""1000000000""#)),
            ("1,1800", Some("1000000000,1800")),
        ] {
            let record = Record { login: None, last_active: Some(before.to_owned()) };
            assert_eq!(record.renewed(now()).as_deref(), after, "{before}");
        }
        assert_eq!(Record::default().renewed(now()), None);
    }
}
