//! The serialized form of times in plan files: whole nanoseconds, since a plan that is read back
//! must be exactly the same.

use serde::{Deserialize, Deserializer, Serializer, ser::Error};
use std::time::Duration;

pub(super) fn serialize<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(time.as_nanos()).map_err(|_| S::Error::custom("a time above 584 years"))?)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    u64::deserialize(deserializer).map(Duration::from_nanos)
}
