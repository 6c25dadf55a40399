//! [`Record`]: the entries of a token in Redis.

use std::{
    borrow::Cow,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::login_rejection::LoginRejection;

/// The values of a token's two keys, as stored.
///
/// Redisson's JSON codec writes strings in quotes, Sa-Token's other stores do not; both are accepted.
#[derive(Debug, Default)]
pub(super) struct Record {
    /// Of `…:token:<jwt>`: the login id, or a negative number once the login was ended.
    pub(super) login: Option<String>,
    /// Of `…:last-active:<jwt>`: milliseconds since 1970, and after a comma the seconds of allowed inactivity.
    pub(super) last_active: Option<String>,
}

/// Sa-Token's check that a login is in use (`isOpenCheckActiveTimeout`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ActivityCheck {
    /// `sa-token.active-timeout` in seconds; -1 for no limit.
    limit: i64,
    /// `sa-token.dynamic-active-timeout`: allows a login to have a limit of its own.
    dynamic: bool,
}

impl ActivityCheck {
    pub(super) fn new(limit: Option<Duration>, dynamic: bool) -> Self {
        let limit = limit.map_or(NO_LIMIT, |limit| i64::try_from(limit.as_secs()).unwrap_or(i64::MAX));
        Self { limit, dynamic }
    }

    /// Returns whether Sa-Token reads and writes the time of last activity.
    pub(super) fn is_on(self) -> bool {
        self.dynamic || self.limit != NO_LIMIT
    }
}

impl Record {
    /// Returns the login id if the login is valid (`StpLogic.checkLogin`). A token that names a login id must belong to that
    /// login.
    pub(super) fn check(
        &self,
        named: Option<&str>,
        activity: ActivityCheck,
        now: SystemTime,
    ) -> Result<Cow<'_, str>, LoginRejection> {
        let login = unquoted(self.login.as_deref().ok_or(LoginRejection::Unknown)?);
        match login.as_ref() {
            "-1" => return Err(LoginRejection::Marked(-1)),
            "-2" => return Err(LoginRejection::Marked(-2)),
            "-3" => return Err(LoginRejection::Expired),
            "-4" => return Err(LoginRejection::Replaced),
            "-5" => return Err(LoginRejection::Kicked),
            "-6" => return Err(LoginRejection::Frozen),
            "-7" => return Err(LoginRejection::Marked(-7)),
            login if login.is_empty() || named.is_some_and(|named| named != login) => {
                return Err(LoginRejection::LoginId);
            }
            _ => {}
        }
        if activity.is_on() {
            self.check_activity(activity, now)?;
        }
        Ok(login)
    }

    fn check_activity(&self, activity: ActivityCheck, now: SystemTime) -> Result<(), LoginRejection> {
        let value = unquoted(self.last_active.as_deref().ok_or(LoginRejection::NeverActive)?);
        let (active, own) = match value.split_once(',') {
            Some((active, own)) => {
                (active, Some(own.parse::<i64>().map_err(|_| LoginRejection::LastActive)?))
            }
            None => (value.as_ref(), None),
        };
        let active: i64 = active.parse().map_err(|_| LoginRejection::LastActive)?;
        let idle = millis(now).saturating_sub(active) / 1000;
        let limit = own.filter(|_| activity.dynamic).unwrap_or(activity.limit);
        if limit >= 0 && idle > limit { Err(LoginRejection::Inactive) } else { Ok(()) }
    }

    /// Returns the value of the second key after activity at `now`: the same with another time.
    pub(super) fn renewed(&self, now: SystemTime) -> Option<String> {
        let value = self.last_active.as_deref()?;
        let quote = if value.starts_with('"') { "\"" } else { "" };
        let value = unquoted(value);
        let limit = value.find(',').map_or("", |comma| &value[comma..]);
        Some(format!("{quote}{}{limit}{quote}", millis(now)))
    }
}

/// Sa-Token's `NEVER_EXPIRE`, and its default.
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
    use super::*;

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_000_000)
    }

    /// As RuoYi-Vue-Plus is shipped.
    const DYNAMIC: ActivityCheck = ActivityCheck { limit: NO_LIMIT, dynamic: true };

    fn check(login: &str, last_active: &str) -> Result<(), LoginRejection> {
        check_with(DYNAMIC, login, last_active)
    }

    fn check_with(activity: ActivityCheck, login: &str, last_active: &str) -> Result<(), LoginRejection> {
        let some = |value: &str| Some(value.to_owned()).filter(|value| !value.is_empty());
        let record = Record { login: some(login), last_active: some(last_active) };
        record.check(Some("sys_user:1"), activity, now()).map(|login| assert_eq!(login, "sys_user:1"))
    }

    #[test]
    fn every_value_of_the_first_key_has_its_meaning() {
        for (login, expected) in [
            (r#""sys_user:1""#, Ok(())),
            ("sys_user:1", Ok(())),
            ("", Err(LoginRejection::Unknown)),
            (r#""sys_user:2""#, Err(LoginRejection::LoginId)),
            (r#""""#, Err(LoginRejection::LoginId)),
            (r#""-1""#, Err(LoginRejection::Marked(-1))),
            (r#""-2""#, Err(LoginRejection::Marked(-2))),
            (r#""-3""#, Err(LoginRejection::Expired)),
            (r#""-4""#, Err(LoginRejection::Replaced)),
            (r#""-5""#, Err(LoginRejection::Kicked)),
            ("-5", Err(LoginRejection::Kicked)),
            (r#""-6""#, Err(LoginRejection::Frozen)),
            (r#""-7""#, Err(LoginRejection::Marked(-7))),
        ] {
            assert_eq!(check(login, r#""1000000000,1800""#), expected, "{login}");
        }
    }

    #[test]
    fn a_mark_in_redis_is_no_login_id_even_if_the_token_says_so() {
        let record = Record { login: Some(r#""-5""#.into()), last_active: Some(r#""1000000000""#.into()) };
        assert_eq!(record.check(Some("-5"), DYNAMIC, now()), Err(LoginRejection::Kicked));
        assert_eq!(record.check(None, DYNAMIC, now()), Err(LoginRejection::Kicked));
    }

    #[test]
    fn inactivity_counts_in_whole_seconds_and_only_against_a_limit() {
        for (last_active, expected) in [
            (r#""1000000000,1800""#, Ok(())),
            (r#""999999000,0""#, Err(LoginRejection::Inactive)),
            (r#""999999001,0""#, Ok(())),
            (r#""998200000,1800""#, Ok(())),
            (r#""998199001,1800""#, Ok(())),
            (r#""998199000,1800""#, Err(LoginRejection::Inactive)),
            ("998199000,1800", Err(LoginRejection::Inactive)),
            (r#""1,-1""#, Ok(())),
            (r#""1""#, Ok(())),
            ("1", Ok(())),
            (r#""2000000000,5""#, Ok(())),
            ("", Err(LoginRejection::NeverActive)),
            (r#""soon""#, Err(LoginRejection::LastActive)),
            (r#""1,soon""#, Err(LoginRejection::LastActive)),
        ] {
            assert_eq!(check(r#""sys_user:1""#, last_active), expected, "{last_active}");
        }
    }

    #[test]
    fn the_limit_is_the_logins_own_only_where_it_may_have_one() {
        let never = ActivityCheck::new(None, false);
        let global = ActivityCheck::new(Some(Duration::from_secs(1800)), false);
        let both = ActivityCheck::new(Some(Duration::from_secs(1800)), true);
        assert_eq!((never.is_on(), global.is_on(), both.is_on(), DYNAMIC.is_on()), (false, true, true, true));
        let (fresh, stale) = ("\"998200000\"", "\"998199000\"");
        let (short, long) = ("\"998200000,60\"", "\"998199000,3600\"");
        for (activity, last_active, expected) in [
            // Sa-Token's own defaults: there is no such key, and one that is left over has no effect.
            (never, "", Ok(())),
            (never, "?", Ok(())),
            (global, "", Err(LoginRejection::NeverActive)),
            (global, fresh, Ok(())),
            (global, stale, Err(LoginRejection::Inactive)),
            (global, short, Ok(())),
            (global, long, Err(LoginRejection::Inactive)),
            (both, fresh, Ok(())),
            (both, stale, Err(LoginRejection::Inactive)),
            (both, short, Err(LoginRejection::Inactive)),
            (both, long, Ok(())),
            (both, "\"1,-1\"", Ok(())),
            (DYNAMIC, stale, Ok(())),
        ] {
            let is = check_with(activity, "sys_user:1", last_active);
            assert_eq!(is, expected, "{activity:?} {last_active}");
        }
    }

    #[test]
    fn a_token_that_names_no_login_id_is_whose_redis_says() {
        for (login, expected) in [
            (r#""10001""#, Ok("10001")),
            ("10001", Ok("10001")),
            (r#""""#, Err(LoginRejection::LoginId)),
            ("", Err(LoginRejection::LoginId)),
            ("-4", Err(LoginRejection::Replaced)),
        ] {
            let record = Record { login: Some(login.to_owned()), last_active: None };
            let is = record.check(None, ActivityCheck::new(None, false), now());
            assert_eq!(is, expected.map(Cow::from), "{login}");
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
