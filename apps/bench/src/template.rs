//! [`Template`]: texts with places for what differs from request to request.

use std::str::FromStr;

/// A text with places such as `{token}` or `{message:json}`; other braces are text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Value(Name, Form),
}

/// A placeholder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    Token,
    User,
    Topic,
    Target,
    Message,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Raw,
    /// As the inside of a JSON string.
    Json,
    /// As a value of a query or a form.
    Url,
}

/// The values of placeholders.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Values<'a> {
    /// The token of the connection's user.
    pub(crate) token: &'a str,
    /// The user's id.
    pub(crate) user: &'a str,
    /// The topic's number, from 0.
    pub(crate) topic: u32,
    /// The fields of realtime's publish API that name the target.
    pub(crate) target: &'a str,
    /// The message.
    pub(crate) message: &'a [u8],
}

impl Template {
    /// Appends the text with the values put in.
    pub(crate) fn render(&self, values: &Values<'_>, text: &mut Vec<u8>) {
        for piece in &self.0 {
            let (name, form) = match piece {
                Piece::Text(piece) => {
                    text.extend_from_slice(piece.as_bytes());
                    continue;
                }
                Piece::Value(name, form) => (*name, *form),
            };
            let number;
            let value = match name {
                Name::Token => values.token.as_bytes(),
                Name::User => values.user.as_bytes(),
                Name::Target => values.target.as_bytes(),
                Name::Message => values.message,
                Name::Topic => {
                    number = values.topic.to_string();
                    number.as_bytes()
                }
            };
            match form {
                Form::Raw => text.extend_from_slice(value),
                Form::Json => push_json(value, text),
                Form::Url => push_url(value, text),
            }
        }
    }

    /// The text with the values put in, lossily as UTF-8.
    pub(crate) fn text(&self, values: &Values<'_>) -> String {
        let mut text = Vec::new();
        self.render(values, &mut text);
        String::from_utf8_lossy(&text).into_owned()
    }
}

/// Values are tokens, numbers and messages of this tool, so there are no control characters in them.
fn push_json(value: &[u8], text: &mut Vec<u8>) {
    for &byte in value {
        if matches!(byte, b'"' | b'\\') {
            text.push(b'\\');
        }
        text.push(byte);
    }
}

fn push_url(value: &[u8], text: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in value {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(byte);
        } else {
            text.extend_from_slice(&[b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
    }
}

/// A place for something that is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{{{0}}}` is none of {{token}}, {{user}}, {{topic}}, {{target}}, {{message}}, with :json or :url behind it"
)]
pub(crate) struct TemplateError(String);

impl FromStr for Template {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        let (mut pieces, mut plain, mut rest) = (Vec::new(), String::new(), text);
        while let Some(open) = rest.find('{') {
            plain.push_str(&rest[..open]);
            rest = &rest[open + 1..];
            // `{name}` and `{name:form}` are places; JSON's braces are followed by something else.
            let place = rest.split_once('}').filter(|(place, _)| {
                !place.is_empty() && place.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b':')
            });
            let Some((place, after)) = place else {
                plain.push('{');
                continue;
            };
            let (name, form) = place.split_once(':').unwrap_or((place, ""));
            let unknown = || TemplateError(place.to_owned());
            let name = match name {
                "token" => Name::Token,
                "user" => Name::User,
                "topic" => Name::Topic,
                "target" => Name::Target,
                "message" => Name::Message,
                _ => return Err(unknown()),
            };
            let form = match form {
                "" => Form::Raw,
                "json" => Form::Json,
                "url" => Form::Url,
                _ => return Err(unknown()),
            };
            if !plain.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut plain)));
            }
            pieces.push(Piece::Value(name, form));
            rest = after;
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        Ok(Self(pieces))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_put_in_as_the_place_needs_them() {
        let values =
            Values { token: "a+b", user: "7", topic: 3, target: r#""x":1"#, message: br#"{"n":"1"}"# };
        for (template, expected) in [
            ("/ws?t={token:url}&u={user}", "/ws?t=a%2Bb&u=7"),
            (r#"{{target},"m":"{message:json}"}"#, r#"{"x":1,"m":"{\"n\":\"1\"}"}"#),
            (r#"{"data":{message},"c":"t{topic}"}"#, r#"{"data":{"n":"1"},"c":"t3"}"#),
            ("data={message:url}", "data=%7B%22n%22%3A%221%22%7D"),
            ("{} {A} { {", "{} {A} { {"),
        ] {
            assert_eq!(template.parse::<Template>().unwrap().text(&values), expected);
        }
    }

    #[test]
    fn an_unknown_place_is_named() {
        let error = "x{tokn}".parse::<Template>().unwrap_err();
        assert!(error.to_string().starts_with("`{tokn}` is none of {token}"), "{error}");
        assert!("{token:base}".parse::<Template>().is_err());
    }
}
