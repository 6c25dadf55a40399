//! [`Rate`]: messages a second.

use std::str::FromStr;

/// Messages a second; 0 for back to back.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Rate(pub(crate) f64);

/// An invalid rate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected messages a second, such as 10/s or 0.5/s, or 0 for back to back")]
pub(crate) struct RateError;

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let number = text.strip_suffix("/s").unwrap_or(text);
        let rate: f64 = number.parse().map_err(|_| RateError)?;
        if rate.is_finite() && rate >= 0.0 { Ok(Self(rate)) } else { Err(RateError) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_number_a_second() {
        for (text, rate) in [("10/s", 10.0), ("0.5/s", 0.5), ("1000", 1000.0), ("0", 0.0)] {
            assert_eq!(text.parse(), Ok(Rate(rate)));
        }
        for bad in ["", "/s", "-1/s", "10/m", "inf", "NaN"] {
            assert_eq!(bad.parse::<Rate>(), Err(RateError), "{bad:?}");
        }
    }
}
