//! Metadata of members: the address at which a node serves clients, and labels. The cluster keeps
//! them for clients and operators; no rule reads them.

use crate::address;
use alloc::{
    collections::BTreeMap,
    string::{String, ToString},
};
use bytes::{Buf, BufMut, BytesMut};
use core::fmt;

/// The metadata of a member.
///
/// **Invariant:** within the bounds that [`MetadataFlaw`] names. So bytes that break one are no
/// metadata for any decoder.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub struct MemberMetadata {
    client_address: Option<String>,
    labels: BTreeMap<String, String>,
}

/// A change of a member's metadata. Fields that it does not name stay.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub struct MetadataUpdate {
    /// The new client address; the inner `None` removes it.
    pub client_address: Option<Option<String>>,
    /// New values of labels; `None` removes the label, if it is there.
    pub labels: BTreeMap<String, Option<String>>,
}

/// The metadata of a member in the configuration.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub struct MemberDescription {
    /// The metadata in force.
    pub metadata: MemberMetadata,
    /// The metadata that the member published last, from its own settings. Only fields in which its
    /// next publication differs from this one are changed, so an operator's change stays.
    pub published: MemberMetadata,
}

/// The bound that metadata would break.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum MetadataFlaw {
    /// The client address is not of the form that [`address::is_origin`] accepts.
    ClientAddress {
        /// The text.
        address: String,
    },
    /// A label's key is not 1 to [`MemberMetadata::KEY_BYTES_MAX`] of `a-z 0-9 - _ .`.
    Key {
        /// The key.
        key: String,
    },
    /// A label's value is longer than [`MemberMetadata::VALUE_BYTES_MAX`] bytes, or has control
    /// characters, which would spoil a terminal.
    Value {
        /// The label's key.
        key: String,
    },
    /// There would be more than [`MemberMetadata::LABELS_MAX`] labels.
    TooManyLabels,
    /// The metadata of all members would take more than [`MemberMetadata::TOTAL_BYTES_MAX`] bytes.
    Total,
}

impl MemberMetadata {
    /// Most labels of a member.
    pub const LABELS_MAX: usize = 16;
    /// Longest key of a label, in bytes.
    pub const KEY_BYTES_MAX: usize = 63;
    /// Longest value of a label, in bytes.
    pub const VALUE_BYTES_MAX: usize = 255;
    /// Most encoded bytes of all members' descriptions. A joint configuration has twice as many at
    /// most, and fits a message between nodes.
    pub const TOTAL_BYTES_MAX: usize = 256 << 10;

    /// Metadata with this client address and these labels.
    ///
    /// # Errors
    /// The bound that one of them breaks.
    pub fn new(client_address: Option<String>, labels: BTreeMap<String, String>) -> Result<Self, MetadataFlaw> {
        if let Some(address) = client_address.as_ref().filter(|address| !address::is_origin(address)) {
            return Err(MetadataFlaw::ClientAddress { address: address.clone() });
        }
        if labels.len() > Self::LABELS_MAX {
            return Err(MetadataFlaw::TooManyLabels);
        }
        let is_key_byte = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
        for (key, value) in &labels {
            if !(1..=Self::KEY_BYTES_MAX).contains(&key.len()) || !key.bytes().all(is_key_byte) {
                return Err(MetadataFlaw::Key { key: key.clone() });
            }
            if value.len() > Self::VALUE_BYTES_MAX || value.chars().any(char::is_control) {
                return Err(MetadataFlaw::Value { key: key.clone() });
            }
        }
        Ok(Self { client_address, labels })
    }

    /// The address at which the node serves clients, `http://HOST:PORT` or `https://HOST:PORT`; the
    /// port may be left out if it is the scheme's.
    #[must_use]
    pub fn client_address(&self) -> Option<&str> {
        self.client_address.as_deref()
    }

    /// The labels, by key.
    #[must_use]
    pub fn labels(&self) -> &BTreeMap<String, String> {
        &self.labels
    }

    /// Whether there is neither a client address nor a label.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The same after `update`.
    ///
    /// # Errors
    /// The bound that it would break.
    pub fn updated(&self, update: &MetadataUpdate) -> Result<Self, MetadataFlaw> {
        let address = update.client_address.as_ref().unwrap_or(&self.client_address);
        let mut labels = self.labels.clone();
        for (key, value) in &update.labels {
            match value {
                Some(value) => labels.insert(key.clone(), value.clone()),
                None => labels.remove(key),
            };
        }
        Self::new(address.clone(), labels)
    }

    /// The encoded length, in bytes.
    fn bytes(&self) -> usize {
        let labels = self.labels.iter().map(|(key, value)| 8 + key.len() + value.len());
        8 + self.client_address.as_ref().map_or(0, String::len) + labels.sum::<usize>()
    }

    fn encode(&self, to: &mut BytesMut) {
        put_text(to, self.client_address.as_deref().unwrap_or_default());
        to.put_u32_le(u32::try_from(self.labels.len()).unwrap_or(u32::MAX));
        for (key, value) in &self.labels {
            put_text(to, key);
            put_text(to, value);
        }
    }

    fn decode(from: &mut &[u8]) -> Result<Self, &'static str> {
        let address = take_text(from).ok_or("client address")?;
        let count = from.try_get_u32_le().map_err(|_| "count of labels")?;
        let mut labels = BTreeMap::new();
        for _ in 0..count {
            let (key, value) = (take_text(from).ok_or("label")?, take_text(from).ok_or("label")?);
            if labels.last_key_value().is_some_and(|(before, _): (&String, _)| before.as_str() >= key) {
                return Err("order of labels");
            }
            labels.insert(key.to_string(), value.to_string());
        }
        let address = (!address.is_empty()).then(|| address.to_string());
        Self::new(address, labels).map_err(|_| "metadata out of bounds")
    }
}

impl MetadataUpdate {
    /// Sets the client address; `None` removes it.
    #[must_use]
    pub fn with_client_address(mut self, address: Option<String>) -> Self {
        self.client_address = Some(address);
        self
    }

    /// Sets a label.
    #[must_use]
    pub fn with_label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(key.into(), Some(value.into()));
        self
    }

    /// Removes a label, if it is there.
    #[must_use]
    pub fn without_label(mut self, key: impl Into<String>) -> Self {
        self.labels.insert(key.into(), None);
        self
    }

    /// The fields in which `now` differs from `before`.
    fn between(before: &MemberMetadata, now: &MemberMetadata) -> Self {
        let differs = |key: &&String| before.labels.get(*key) != now.labels.get(*key);
        let keys = before.labels.keys().chain(now.labels.keys()).filter(differs);
        let address = (before.client_address != now.client_address).then(|| now.client_address.clone());
        Self { client_address: address, labels: keys.map(|key| (key.clone(), now.labels.get(key).cloned())).collect() }
    }
}

impl MemberDescription {
    /// The same after an operator's `update`.
    ///
    /// # Errors
    /// The bound that it would break.
    pub(crate) fn updated(&self, update: &MetadataUpdate) -> Result<Self, MetadataFlaw> {
        Ok(Self { metadata: self.metadata.updated(update)?, published: self.published.clone() })
    }

    /// The same after the member published `metadata`. A member publishes at each start; without a
    /// change of its settings this changes nothing, so it takes no operator's change back, and two
    /// sources of one field can't alternate.
    ///
    /// # Errors
    /// The bound that it would break together with an operator's labels.
    pub(crate) fn republished(&self, metadata: &MemberMetadata) -> Result<Self, MetadataFlaw> {
        let update = MetadataUpdate::between(&self.published, metadata);
        Ok(Self { metadata: self.metadata.updated(&update)?, published: metadata.clone() })
    }

    /// The encoded length, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.metadata.bytes() + self.published.bytes()
    }

    /// Appends the metadata in force and the published one. Of each: the client address, as a length
    /// (4 bytes; 0 for none) and text; a count of labels (4 bytes), each a key and a value, both a
    /// length (4 bytes) and text. Little-endian.
    pub(crate) fn encode(&self, to: &mut BytesMut) {
        self.metadata.encode(to);
        self.published.encode(to);
    }

    /// Takes the output of [`MemberDescription::encode`] off the front.
    ///
    /// # Errors
    /// If it is anything else, or out of bounds.
    pub(crate) fn decode(from: &mut &[u8]) -> Result<Self, &'static str> {
        Ok(Self { metadata: MemberMetadata::decode(from)?, published: MemberMetadata::decode(from)? })
    }
}

fn put_text(to: &mut BytesMut, text: &str) {
    to.put_u32_le(u32::try_from(text.len()).unwrap_or(u32::MAX));
    to.put_slice(text.as_bytes());
}

/// Takes a length and so much text off the front; `None` if it is not there.
fn take_text<'a>(from: &mut &'a [u8]) -> Option<&'a str> {
    let length = from.try_get_u32_le().ok()? as usize;
    let (text, rest) = from.split_at_checked(length)?;
    *from = rest;
    core::str::from_utf8(text).ok()
}

impl core::error::Error for MetadataFlaw {}

impl fmt::Display for MetadataFlaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A refused text may have any length.
        let shown = |text: &str| text.chars().take(64).flat_map(char::escape_debug).collect::<String>();
        match self {
            Self::ClientAddress { address } => write!(
                f,
                "the client address `{}` is not http://HOST:PORT or https://HOST:PORT of one machine, in {} bytes",
                shown(address),
                address::BYTES_MAX
            ),
            Self::Key { key } => write!(
                f,
                "the label key `{}` is not 1 to {} of a-z, 0-9, `-`, `_` and `.`",
                shown(key),
                MemberMetadata::KEY_BYTES_MAX
            ),
            Self::Value { key } => write!(
                f,
                "the value of label `{}` is longer than {} bytes, or has control characters",
                shown(key),
                MemberMetadata::VALUE_BYTES_MAX
            ),
            Self::TooManyLabels => write!(f, "a member has {} labels at most", MemberMetadata::LABELS_MAX),
            Self::Total => {
                write!(f, "the metadata of all members has {} bytes at most", MemberMetadata::TOTAL_BYTES_MAX)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{format, vec::Vec};

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
    }

    fn metadata(address: &str, pairs: &[(&str, &str)]) -> MemberMetadata {
        let address = (!address.is_empty()).then(|| address.to_string());
        MemberMetadata::new(address, labels(pairs)).expect("within bounds")
    }

    #[test]
    fn metadata_out_of_bounds_is_refused_and_the_refusal_names_it() {
        let (longest_key, longest_value) = ("k".repeat(63), "v".repeat(255));
        metadata("https://[::1]:8443", &[(&longest_key, &longest_value), ("a-_.9", ""), ("b", "grün ü")]);
        let (key, value) = ("k".repeat(64), "v".repeat(256));
        for (address, pair, says) in [
            (Some("10.0.0.1:8001"), None, "the client address `10.0.0.1:8001`"),
            (Some(""), None, "the client address ``"),
            (None, Some(("", "v")), "the label key ``"),
            (None, Some(("Zone", "v")), "the label key `Zone`"),
            (None, Some(("a\u{1b}", "v")), "the label key `a\\u{1b}`"),
            (None, Some((&*key, "v")), "the label key `kkk"),
            (None, Some(("zone", &*value)), "the value of label `zone`"),
            (None, Some(("zone", "a\nb")), "the value of label `zone`"),
        ] {
            let refused = MemberMetadata::new(address.map(ToString::to_string), labels(pair.as_slice()));
            let flaw = refused.expect_err(says).to_string();
            assert!(flaw.starts_with(says) && !flaw.contains(char::is_control), "{flaw}");
        }
        let many = |count| (0..count).map(|at| (format!("k{at}"), String::new())).collect();
        assert!(MemberMetadata::new(None, many(16)).is_ok());
        assert_eq!(MemberMetadata::new(None, many(17)), Err(MetadataFlaw::TooManyLabels));
    }

    #[test]
    fn an_update_changes_the_fields_that_it_names() {
        let before = metadata("http://a:1", &[("rack", "1"), ("zone", "a")]);
        assert_eq!(before.updated(&MetadataUpdate::default()), Ok(before.clone()));
        let update = MetadataUpdate::default().with_label("zone", "b").without_label("rack").without_label("none");
        assert_eq!(before.updated(&update), Ok(metadata("http://a:1", &[("zone", "b")])));
        let update = MetadataUpdate::default().with_client_address(None);
        assert_eq!(before.updated(&update), Ok(metadata("", &[("rack", "1"), ("zone", "a")])));
        assert!(before.updated(&MetadataUpdate::default().with_label("Z", "b")).is_err());
    }

    #[test]
    fn the_last_change_of_a_field_counts_be_it_the_members_or_an_operators() {
        let start = MemberDescription::default();
        let stated = metadata("http://a:1", &[("rack", "1"), ("zone", "a")]);
        let first = start.republished(&stated).expect("within bounds");
        assert_eq!((&first.metadata, &first.published), (&stated, &stated));
        let update = MetadataUpdate::default().with_label("zone", "b").with_label("owner", "x");
        let operated = first.updated(&update).expect("within bounds");
        assert_eq!(operated.republished(&stated), Ok(operated.clone()), "a restart with the same settings");
        let restated = metadata("http://a:2", &[("zone", "a")]);
        let later = operated.republished(&restated).expect("within bounds");
        assert_eq!(
            later.metadata,
            metadata("http://a:2", &[("owner", "x"), ("zone", "b")]),
            "rack was not stated again"
        );
        let none = later.republished(&MemberMetadata::default()).expect("within bounds");
        assert_eq!(none.metadata, metadata("", &[("owner", "x")]));
        let added = start.updated(&update).expect("within bounds").republished(&stated).expect("within bounds");
        assert_eq!(added.metadata, metadata("http://a:1", &[("owner", "x"), ("rack", "1"), ("zone", "a")]));
    }

    #[test]
    fn a_description_is_read_as_it_was_written_and_cut_short_is_refused() {
        let description = MemberDescription {
            metadata: metadata("http://a:1", &[("rack", "1"), ("zone", "")]),
            published: metadata("", &[("zone", "a")]),
        };
        let mut bytes = BytesMut::new();
        description.encode(&mut bytes);
        assert_eq!(bytes.len(), description.bytes());
        let mut rest = &bytes[..];
        assert_eq!(MemberDescription::decode(&mut rest), Ok(description));
        assert!(rest.is_empty());
        for length in 0..bytes.len() {
            assert!(MemberDescription::decode(&mut &bytes[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn bytes_that_break_a_bound_are_no_metadata() {
        let decoded = |address: &str, pairs: &[(&str, &str)]| {
            let mut bytes = BytesMut::new();
            put_text(&mut bytes, address);
            bytes.put_u32_le(pairs.len() as u32);
            pairs.iter().for_each(|(key, value)| {
                put_text(&mut bytes, key);
                put_text(&mut bytes, value);
            });
            MemberMetadata::decode(&mut &bytes[..])
        };
        assert_eq!(
            decoded("http://a:1", &[("a", "1"), ("b", "2")]),
            Ok(metadata("http://a:1", &[("a", "1"), ("b", "2")]))
        );
        let value = "v".repeat(256);
        for (address, pairs) in [
            ("a:1", &[][..]),
            ("", &[("B", "")]),
            ("", &[("b", "\0")]),
            ("", &[("b", &value)]),
            ("", &[("b", ""), ("a", "")]),
            ("", &[("a", ""), ("a", "")]),
        ] {
            assert!(decoded(address, pairs).is_err(), "{address} {pairs:?}");
        }
        let keys: Vec<_> = (0..17).map(|at| format!("k{at:02}")).collect();
        let many: Vec<_> = keys.iter().map(|key| (&**key, "")).collect();
        assert!(decoded("", &many[..16]).is_ok() && decoded("", &many).is_err());
    }
}
