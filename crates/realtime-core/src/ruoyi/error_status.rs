//! [`ErrorStatus`]: the HTTP status of the response to a refused login.

use serde::Deserialize;

/// HTTP status of the response to a refused login. The body is a [`Reply`](crate::ruoyi::Reply) whose `code` is 401 or
/// 403 in either case.
///
/// It deserializes from the number 401 or 200.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "i64")]
pub enum ErrorStatus {
    /// 401 or 403, the statuses of HTTP.
    #[default]
    Http,
    /// 200, like RuoYi's Java services, whose front ends only read `code`.
    Always200,
}

/// Error of a text that is not an [`ErrorStatus`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is none of: 401, 200")]
pub struct UnknownErrorStatus(i64);

impl ErrorStatus {
    /// The status of a response whose body has this code. Codes other than 401 and 403 stay as they are.
    pub fn of(self, code: u16) -> u16 {
        match (self, code) {
            (Self::Always200, 401 | 403) => 200,
            _ => code,
        }
    }
}

impl TryFrom<i64> for ErrorStatus {
    type Error = UnknownErrorStatus;

    fn try_from(status: i64) -> Result<Self, Self::Error> {
        match status {
            401 => Ok(Self::Http),
            200 => Ok(Self::Always200),
            _ => Err(UnknownErrorStatus(status)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_refused_logins_get_another_status() {
        for (code, always) in
            [(401, 200), (403, 200), (200, 200), (204, 204), (400, 400), (429, 429), (503, 503)]
        {
            assert_eq!((ErrorStatus::Http.of(code), ErrorStatus::Always200.of(code)), (code, always));
        }
    }

    #[test]
    fn there_are_two_and_the_default_is_that_of_http() {
        assert_eq!(ErrorStatus::try_from(401), Ok(ErrorStatus::default()));
        assert_eq!(ErrorStatus::try_from(200), Ok(ErrorStatus::Always200));
        assert_eq!(ErrorStatus::try_from(403).unwrap_err().to_string(), "`403` is none of: 401, 200");
    }
}
