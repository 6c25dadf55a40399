//! [`Reply`]: the response format of RuoYi's HTTP interfaces.

use serde::Serialize;

/// `{"code":200,"msg":"操作成功","data":null}`: the format that RuoYi's front end expects of every HTTP response.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reply<T = ()> {
    /// 200, or the error's status.
    pub code: u16,
    /// A text for people.
    pub msg: String,
    /// The result; `null` on errors.
    pub data: Option<T>,
}

impl Reply {
    /// Creates RuoYi's success response without data.
    pub fn ok() -> Self {
        Self { code: 200, msg: "操作成功".to_owned(), data: None }
    }

    /// Creates an error response.
    pub fn error(code: u16, msg: impl Into<String>) -> Self {
        Self { code, msg: msg.into(), data: None }
    }
}

impl<T> Reply<T> {
    /// Creates a success response with data.
    pub fn data(data: T) -> Self {
        Self { code: 200, msg: "操作成功".to_owned(), data: Some(data) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_ruoyis() {
        assert_eq!(
            serde_json::to_string(&Reply::ok()).unwrap(),
            r#"{"code":200,"msg":"操作成功","data":null}"#
        );
        assert_eq!(
            serde_json::to_string(&Reply::data(3)).unwrap(),
            r#"{"code":200,"msg":"操作成功","data":3}"#
        );
    }
}
