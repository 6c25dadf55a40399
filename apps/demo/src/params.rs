//! [`Params`]: the query of a request to the demo's own interface.

use std::{
    collections::BTreeMap,
    future::{Ready, ready},
};

use actix_web::{FromRequest, HttpRequest, dev::Payload, web::Query};
use form_urlencoded::Serializer;
use realtime_core::auth::only;
use serde::de::DeserializeOwned;

use crate::api_error::ApiError;

/// The parameters of a request; extracting them fails with 400. As everywhere, an empty one is absent, the same one twice
/// is one, and one with two values or bytes that are not text is refused.
pub(crate) struct Params<T> {
    pub(crate) values: T,
    /// One was given without a value.
    pub(crate) has_empty: bool,
}

impl<T: DeserializeOwned> FromRequest for Params<T> {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(parse(request.query_string()))
    }
}

fn parse<T: DeserializeOwned>(query: &str) -> Result<Params<T>, ApiError> {
    let mut given = BTreeMap::<_, Vec<_>>::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        given.entry(name).or_default().push(value);
    }
    let mut clear = Serializer::new(String::new());
    for (name, values) in &given {
        if let Some(value) = only(name, values.iter().map(|value| &**value)).map_err(ApiError::bad_request)? {
            clear.append_pair(name, value);
        }
    }
    let values = Query::<T>::from_query(&clear.finish()).map_err(ApiError::bad_request)?.into_inner();
    Ok(Params { values, has_empty: given.values().flatten().any(|value| value.is_empty()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize, Debug, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Page {
        page: Option<usize>,
    }

    #[test]
    fn one_value_counts_an_empty_one_is_absent_and_others_are_refused() {
        for (query, expected) in [
            ("", Ok(None)),
            ("page=", Ok(None)),
            ("page=2&page=2&page=", Ok(Some(2))),
            ("page=2&page=3", Err("page: given more than once, with different values")),
            ("page=%FF", Err("page: not UTF-8")),
            ("page=x", Err("Query deserialize error: invalid digit found in string")),
            ("other=1", Err("Query deserialize error: unknown field `other`, expected `page`")),
        ] {
            let page = parse::<Page>(query).map(|params| params.values.page);
            assert_eq!(page.map_err(|error| error.to_string()), expected.map_err(str::to_owned), "{query}");
        }
        assert!(parse::<Page>("page=").unwrap().has_empty);
    }
}
