//! JSON of commands.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::auth::TokenHash;

impl Serialize for TokenHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:032x}", u128::from_be_bytes(self.to_bytes())))
    }
}

impl<'de> Deserialize<'de> for TokenHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let hash = u128::from_str_radix(&text, 16).map_err(serde::de::Error::custom)?;
        Ok(Self::from_bytes(hash.to_be_bytes()))
    }
}

/// Seconds since 1970.
pub(super) mod seconds {
    use super::{Deserialize, Deserializer, Duration, Serializer, SystemTime, UNIX_EPOCH};

    pub(crate) fn serialize<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SystemTime, D::Error> {
        let seconds = Duration::from_secs(u64::deserialize(deserializer)?);
        UNIX_EPOCH.checked_add(seconds).ok_or_else(|| serde::de::Error::custom("the time is out of range"))
    }
}

/// Optional seconds since 1970. An expiry must not become earlier, so fractions are rounded up.
pub(super) mod optional_seconds {
    use super::{
        Deserialize, Deserializer, Duration, Serialize, Serializer, SystemTime, UNIX_EPOCH, seconds,
    };

    #[derive(Serialize, Deserialize)]
    struct Seconds(#[serde(with = "seconds")] SystemTime);

    pub(crate) fn serialize<S: Serializer>(
        time: &Option<SystemTime>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let fraction =
            |time: &SystemTime| time.duration_since(UNIX_EPOCH).is_ok_and(|at| at.subsec_nanos() > 0);
        let ceil =
            |time: SystemTime| if fraction(&time) { time.checked_add(Duration::from_secs(1)) } else { None };
        time.map(|time| Seconds(ceil(time).unwrap_or(time))).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<SystemTime>, D::Error> {
        Ok(Option::<Seconds>::deserialize(d)?.map(|Seconds(time)| time))
    }
}

/// A cursor.
pub(super) mod position {
    use super::{Deserialize, Deserializer, Serializer};
    use crate::Position;

    pub(crate) fn serialize<S: Serializer>(position: &Position, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(position)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Position, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Optional cursor. A string that is not a cursor of this version becomes `None`, so that the command still applies.
pub(super) mod optional_position {
    use super::{Deserialize, Deserializer, Serializer};
    use crate::Position;

    pub(crate) fn serialize<S: Serializer>(
        position: &Option<Position>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match position {
            Some(position) => serializer.collect_str(position),
            None => serializer.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Position>, D::Error> {
        Ok(Option::<String>::deserialize(d)?.and_then(|text| text.parse().ok()))
    }
}
