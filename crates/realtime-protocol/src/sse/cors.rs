//! [`Cors`]: what pages of other origins may do here (Fetch standard, section 3.2).

use realtime_core::{
    auth::{AllowedOrigins, Handshake, Page},
    wire::LineLimit,
};

use crate::{Answer, text::shown_origin};

/// Access of the page that has made a request.
#[derive(Debug)]
pub(crate) enum Cors {
    /// It needs no permission, or does not get it: its browser does not show it the response.
    None,
    /// A page of this origin reads the response, and may send cookies.
    Credentials(String),
    /// Any page reads the response.
    Any,
}

/// Headers that pages may send: those of a login, and of a client that reconnects.
const REQUEST_HEADERS: &str = "authorization, cache-control, clientid, content-type, last-event-id";

/// Headers of responses that pages read, besides those that all do.
const RESPONSE_HEADERS: &str = "retry-after, x-realtime-cursor";

/// Seconds for which browsers remember an answer to a preflight request.
const MAX_AGE: &str = "600";

impl Cors {
    /// The access that a request has.
    ///
    /// # Errors
    /// A page that would use its visitor's cookies although it is not named.
    pub(crate) fn of(allowed: &AllowedOrigins, request: &Handshake) -> Result<Self, ForeignPage> {
        let page = allowed.page(request);
        // Pages of other origins send cookies if they ask for it, and for images always: any of them may be a login.
        let has_cookies = request.header("Cookie").is_some();
        match page {
            Page::Any(origin) if has_cookies && !allowed.trusts_cookies(request) => {
                Err(ForeignPage::of(Some(origin)))
            }
            Page::Foreign(origin) if has_cookies && !allowed.trusts_cookies(request) => {
                Err(ForeignPage::of(origin))
            }
            Page::Own => Ok(Self::None),
            Page::Trusted(origin) if origin.bytes().all(|byte| (b' '..=b'~').contains(&byte)) => {
                Ok(Self::Credentials(origin.to_owned()))
            }
            // No header can have it.
            Page::Trusted(_) => Ok(Self::None),
            Page::Any(_) => Ok(Self::Any),
            Page::Foreign(origin) => {
                tracing::debug!(
                    origin = origin.map(shown_origin),
                    "a page of another origin cannot read the response"
                );
                Ok(Self::None)
            }
        }
    }

    /// The response to a preflight request, for these methods of the resource.
    pub(crate) fn preflight(allowed: &AllowedOrigins, request: &Handshake, methods: &'static str) -> Answer {
        if let Page::Foreign(origin) = allowed.page(request) {
            return ForeignPage::of(origin).refuse();
        }
        let answer = Answer::empty(204).header("allow", methods);
        if request.header("Access-Control-Request-Method").is_none() {
            return answer;
        }
        answer
            .header("access-control-allow-methods", methods)
            .header("access-control-allow-headers", REQUEST_HEADERS)
            .header("access-control-max-age", MAX_AGE)
    }

    /// The headers that tell a browser what its page may do with the response. `vary` is in addition to others of the name.
    pub(crate) fn headers(self) -> Vec<(&'static str, String)> {
        let mut headers = Vec::new();
        let origin = match self {
            Self::None => None,
            Self::Credentials(origin) => {
                headers.push(("access-control-allow-credentials", "true".to_owned()));
                Some(origin)
            }
            Self::Any => Some("*".to_owned()),
        };
        if let Some(origin) = origin {
            headers.push(("access-control-allow-origin", origin));
            headers.push(("access-control-expose-headers", RESPONSE_HEADERS.to_owned()));
        }
        // Also without the others: a cache must not give one page's response to another page.
        headers.push(("vary", "Origin".to_owned()));
        headers
    }
}

/// A page that is refused; its origin, if its browser tells.
#[derive(Debug)]
pub(crate) struct ForeignPage(Option<String>);

impl ForeignPage {
    fn of(origin: Option<&str>) -> Self {
        Self(origin.map(str::to_owned))
    }

    /// The response to its request.
    pub(crate) fn refuse(self) -> Answer {
        let Self(origin) = self;
        static REFUSED: LineLimit = LineLimit::per_second();
        if let Some(unlogged) = REFUSED.next() {
            let origin = origin.as_deref().map(shown_origin);
            tracing::warn!(
                origin,
                unlogged,
                "refused a page of another origin; sse.allowedOrigins can name it"
            );
        }
        let problem = match origin {
            Some(origin) => format!("origin {origin:?} is not allowed"),
            None => "pages of other sites are not allowed".to_owned(),
        };
        Answer::error(403, 403, &problem)
    }
}
